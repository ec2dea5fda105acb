"""Sounds a second, from files to features, beside a plain loop of librosa and the same network.

Takes librosa in the environment, which the pipeline does without, the set of packages
example-audio, and Debian's apt-get.
    pip install librosa
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import files, version
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.harness import CORES, ROOT, in_turns, need, optional, ratios, spread, table
from pipeline import kinds
from pipeline.backbones import exports, speech
from pipeline.backbones.engines.on_onnxruntime import on_export

librosa = optional("librosa")
AUDIO = kinds.named("audio")
SETS = ("digits", "letters", "drums")
ROUNDS = 3
MOST = 200  # sounds of a set
SOME = 8  # sounds that a thread takes at once, as extract.batch_size of examples/audio


def ours(paths: list[Path]) -> np.ndarray:
    """As `extract` does it: each core takes whole sounds."""
    engine = on_export(exports.exported("speech_embedding", "pretrained"), AUDIO)

    def of(start: int) -> np.ndarray:
        asked = [(path.read_bytes(), [AUDIO.original]) for path in paths[start : start + SOME]]
        return engine.features(engine.make_views(asked), SOME)

    with ThreadPoolExecutor(CORES) as pool:
        return np.concatenate(list(pool.map(of, range(0, len(paths), SOME))))


def plain(paths: list[Path], threads: int) -> np.ndarray:
    """A loop that anybody writes: load, resample and fill up with librosa, run, take statistics."""
    packaged = next(file for file in files(speech.PACKAGE) or () if str(file) == speech.FILE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0: as many as there are cores
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(packaged.locate()), options, providers=["CPUExecutionProvider"]
    )
    rows = []
    for path in paths:
        sound, _ = librosa.load(path, sr=speech.RATE)
        windows = [sound]
        if len(sound) > speech.WINDOW:
            pieces = -(-len(sound) // speech.WINDOW)
            starts = np.linspace(0, len(sound) - speech.WINDOW, pieces).round().astype(int)
            windows = [sound[start : start + speech.WINDOW] for start in starts]
        seen = []
        for window in windows:
            filled = librosa.util.pad_center(window, size=speech.WINDOW)
            (frames,) = session.run(None, {"samples:0": filled[None].astype(np.float32)})
            frames = frames[0, :, 0]
            seen.append(np.concatenate([frames.mean(0), frames.std(0), frames.max(0)]))
        rows.append(np.mean(seen, axis=0))
    return np.stack(rows)


def measure(scratch: Path) -> str:
    """Both ways in turns, on the sets that `examples/audio/data.py` makes."""
    need(librosa, "librosa: pip install librosa")
    rows = []
    for name in SETS:
        folder = scratch / name
        folder.mkdir()
        script = ROOT / "examples" / "audio" / "data.py"
        subprocess.run([sys.executable, script, name], cwd=folder, check=True)
        found = sorted((folder / "data" / "raw" / "sounds").glob("*.[!c]*"))
        paths = found[:: -(-len(found) // MOST)]
        first = paths[:SOME]
        plain(first, 0), ours(first)  # imports, and what is compiled once
        ways = {
            "Headstart": partial(ours, paths),
            "librosa, one thread": partial(plain, paths, 1),
            f"librosa, {CORES} threads": partial(plain, paths, 0),
        }
        costs = in_turns(ROUNDS, ways)
        walls = {way: [cost.wall for cost in some] for way, some in costs.items()}
        cpus = {way: [cost.cpu for cost in some] for way, some in costs.items()}
        reference = costs["librosa, one thread"][0].gave
        apart = np.abs(costs["Headstart"][0].gave - reference).max(axis=1)
        largest = np.abs(reference).max(axis=1)
        for way, seconds in walls.items():
            rows.append(
                (
                    name,
                    len(paths),
                    way,
                    spread((len(paths) / wall for wall in seconds), "{:.0f}"),
                    spread(ratios(seconds, walls["Headstart"])),
                    spread(ratios(cpus[way], cpus["Headstart"])),
                    float(np.median(apart / largest)) if way == "Headstart" else None,
                )
            )
    columns = (
        "set | sounds | way | sounds a second | seconds beside Headstart's"
        " | processor seconds beside Headstart's | features apart, of the largest {:.0e}"
    )
    return f"""# Sounds: speed beside a plain loop of librosa

From files to features of the speech embedding, {ROUNDS} rounds in turns; the median, and the least
and the most. The loop is librosa {version("librosa")} and the package's own ONNX file in ONNX
Runtime {version("onnxruntime")}, a sound at a time; the sounds are filled up and cut in the same
way. {CORES} cores, load {os.getloadavg()[0]:.1f} as it ended.

{table(columns, rows)}
"""
