"""Texts a second: `extract`'s way beside sentence-transformers' `encode`, with the same weights.

Both on one thread, taking turns in one process, and OpenVINO in bfloat16 beside them. Seconds are
those of the processor, so that other work on the machine matters little: with more threads than
free cores, PyTorch would wait for itself and look slower than it is. The texts are the titles of
`examples/text/data.py` and, for the mixed lengths, beginnings of the same articles of up to 256
tokens. sentence-transformers is in no set of packages: `pip install sentence-transformers`.
"""

import contextlib
import hashlib
import os
import random
import runpy
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.harness import ROOT, need, optional, ratios, spread, table
from pipeline import kinds
from pipeline.backbones.engines import Engine, open_engine
from pipeline.backbones.minilm import FILES, LONGEST
from pipeline.core.params import ExtractParams
from pipeline.kinds.text import tokens
from pipeline.runners.threads import batches, features_of

sentence_transformers = optional("sentence_transformers")
BATCH = 256  # as in examples/text/params.yaml
THEIR_BATCHES = (32, 256)  # the default of `encode`, and ours


def articles(some: int) -> list[str]:
    """Articles in an order that does not go by topic."""
    folder = runpy.run_path(str(ROOT / "examples" / "text" / "data.py"))["articles"]()
    files = sorted(folder.rglob("*.txt"))
    random.Random(0).shuffle(files)  # noqa: S311 (no secret)
    return [file.read_text(encoding="utf-8", errors="replace") for file in files[:some]]


def mixed(every: list[str]) -> list[str]:
    """One half are titles, the other half beginnings of up to some 256 tokens."""
    drawn = random.Random(1)  # noqa: S311
    return [
        text.splitlines()[0]
        if drawn.random() < 0.5
        else " ".join(text.split()[: drawn.randint(10, 200)])
        for text in every
    ]


def measure(scratch: Path, rounds: int = 5, some: int = 128) -> str:
    need(sentence_transformers, "sentence-transformers: pip install sentence-transformers")
    with contextlib.chdir(scratch):
        return measured(rounds, some)


def measured(rounds: int, some: int) -> str:
    _, path, _ = FILES["minilm_l6_v2"]
    spec = find_spec(path.partition("/")[0])
    assert spec
    theirs = sentence_transformers.SentenceTransformer(
        str(Path(str(spec.origin)).parent / "model"), device="cpu"
    )
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    kind = kinds.named("text")
    asked = ExtractParams(backbone="minilm_l6_v2", batch_size=BATCH)
    engine = open_engine(asked, kind)
    shorter = open_engine(asked.model_copy(update={"precision": "bfloat16"}), kind)

    every = articles(some)
    lines, furthest = [], 0.0
    for name, texts in (
        ("titles", [text.splitlines()[0] for text in every]),
        ("mixed lengths", mixed(every)),
    ):
        lengths = [len(tokens.encoded(text, engine.preprocessing).ids) for text in texts]
        assert max(lengths) <= LONGEST
        ours = Extraction(Path(name), texts, engine)
        works = {"ours": ours, "bfloat16": Extraction(Path(f"{name}, again"), texts, shorter)} | {
            f"theirs {size}": partial(theirs.encode, texts, batch_size=size)
            for size in THEIR_BATCHES
        }
        furthest = max(furthest, float(np.abs(ours() - theirs.encode(texts)).max()))
        rates: dict[str, list[float]] = {work: [] for work in works}
        for _ in range(rounds):
            for work, call in works.items():
                start = time.process_time()
                call()
                rates[work].append(len(texts) / (time.process_time() - start))
        lines.append(
            (
                name,
                float(np.mean(lengths)),
                *(spread(rates[work], "{:.0f}") for work in works),
                *(spread(ratios(rates["ours"], rates[w])) for w in works if w.startswith("theirs")),
            )
        )
    columns = "texts | tokens, mean {:.0f} | Headstart | in bfloat16"
    columns += "".join(f" | encode, batches of {size}" for size in THEIR_BATCHES)
    columns += "".join(f" | Headstart over batches of {size}" for size in THEIR_BATCHES)
    return f"""# Texts a second, beside sentence-transformers

{some} texts in float32, from bytes to features, with the same weights; texts a second of the
processor, one thread each. sentence-transformers {sentence_transformers.__version__}, PyTorch
{torch.__version__}. Medians of {rounds} rounds in turns, with the least and the most. The features
differ by at most {furthest:.1e}.

{table(columns, lines)}
"""


class Extraction:
    """What `extract` does but for the store."""

    def __init__(self, folder: Path, texts: list[str], engine: Engine) -> None:
        """Write the texts to a folder of the working directory, where what is read has to lie."""
        folder.mkdir()
        rows = []
        for number, text in enumerate(texts):
            file = folder / f"{number}.txt"
            file.write_text(text, encoding="utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()
            rows.append((digest, str(file), number.to_bytes(4, "big")))
        self._table = pd.DataFrame(rows, columns=["digest", "path", "key"])
        self._engine = engine

    def __call__(self) -> np.ndarray:
        """The features, in the order of the texts."""
        found: dict[bytes, np.ndarray] = {}
        for batch in batches(self._table, BATCH):
            found |= features_of(batch, self._engine, BATCH)
        return np.stack([found[key] for key in self._table["key"]])
