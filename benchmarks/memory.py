"""Peak memory of every stage, with 1,000 and with 20,000 pictures.

    python benchmarks/memory.py

Each picture is a 500×375 JPEG; those beyond the first thousand repeat the pixels of one of them
under other bytes, so that each is decoded and computed. Writes `benchmarks/memory.md`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from ten_in_ten_thousand import draw

ROOT = Path(__file__).parent.parent
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
FEW, MANY = 1_000, 20_000


def multiply(folder: Path, times: int) -> None:
    """Put copies of each JPEG beside it that differ by a comment only."""
    for file in sorted(folder.rglob("*.jpg")):
        data = file.read_bytes()
        for number in range(1, times):
            comment = f"copy {number}".encode()
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            file.with_stem(f"{file.stem}_{number}").write_bytes(data[:2] + segment + data[2:])


def peaks(pictures: Path, folder: Path) -> dict[str, float]:
    """Megabytes that each stage held at most, with a cold store."""
    (folder / "data").mkdir(parents=True)
    (folder / "reports").mkdir()
    (folder / "pictures").symlink_to(pictures)
    (folder / "store").mkdir()
    exported = folder.parent / "backbones"  # the same for all three
    exported.mkdir(exist_ok=True)
    (folder / "store" / "backbones").symlink_to(exported)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["ingest"] |= {"source": "folder", "path": "pictures"}
    params["augment"]["views"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    environment = os.environ | {
        "HEADSTART_STORE": str(folder / "store"),
        "PYTHONPATH": str(ROOT),
    }
    found = {}
    for stage in STAGES:
        command = [sys.executable, "-m", f"pipeline.{stage}"]
        process = subprocess.Popen(command, cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{stage} failed")
        found[stage] = usage.ru_maxrss / 1024
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "pictures", range(FEW))
        # The first run exports the backbone, which takes more memory than using it.
        peaks(folder / "pictures", folder / "warm")
        few = peaks(folder / "pictures", folder / "few")
        multiply(folder / "pictures", MANY // FEW)
        many = peaks(folder / "pictures", folder / "many")
    lines = [
        f"# Peak memory with {FEW:,} and with {MANY:,} pictures, one augmented view each",
        "",
        "Made by `python benchmarks/memory.py`; megabytes of the stage's process (`ru_maxrss`).",
        "",
        f"| stage | {FEW:,} pictures | {MANY:,} pictures | ratio |",
        "| --- | --- | --- | --- |",
        *(
            f"| {stage} | {few[stage]:.0f} | {many[stage]:.0f} | {many[stage] / few[stage]:.2f} |"
            for stage in STAGES
        ),
        "",
        "Goal: 1.1 for `extract`, which holds pictures. `train` holds the features themselves,",
        "5 kB a view, and grows with them.",
        "",
    ]
    (ROOT / "benchmarks" / "memory.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
