"""Projects for the commands."""

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import begin_store

SHAPES, TEXTS = Path("data/raw/shapes"), Path("data/raw/texts.csv")


@pytest.fixture
def vectors(project):
    """A project of vectors with 60 labelled examples of two classes, and a pool of 200 others."""
    project.set(**{"ingest.kind": "vector", "ingest.source": "parquet"})
    project.set(**{"ingest.path": "data/raw/table.parquet", "extract.backbone": "identity"})
    project.set(**{"augment": {"views": 0}, "evaluate.bootstrap": 10})
    random = np.random.default_rng(0)
    labels = np.arange(260) % 2
    table = pd.DataFrame({"key": [f"item {number}" for number in range(260)]})
    points = random.standard_normal((260, 6)).astype(np.float32)
    points[:, 0] += 3 * labels
    table["vector"], table["label"] = points.tolist(), np.array(["left", "right"])[labels]
    table[:60].to_parquet("data/raw/table.parquet")
    table[50:].drop(columns="label").to_parquet("data/pool.parquet")
    return project


@pytest.fixture
def shapes(lite0, draw_picture, tmp_path, monkeypatch):
    """A project with a folder of 30 discs and squares; the names of squares are odd numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path, lite0.parent)))
    Path("params.yaml").write_text(
        f"ingest: {{source: csv, path: {SHAPES}}}\nextract: {{backbone: histogram}}\n"
    )
    for number in range(30):
        place = SHAPES / f"sub,folder{number % 3}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(number, 60 + number, 50 + number, square=bool(number % 2)).save(place)
    (SHAPES / "notes.txt").write_text("not a picture")
    (SHAPES / os.fsdecode(b"\xff.png")).write_bytes((SHAPES / "sub,folder0/0.png").read_bytes())
    return SHAPES


@pytest.fixture
def texts(project):
    """A project of texts that has none, and a table of 30."""
    Path("params.yaml").write_text(
        "ingest: {kind: text, source: csv, path: data/raw}\nextract: {backbone: characters}\n"
    )
    with TEXTS.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text"])
        for number in range(30):
            word = ("sun, warm", "rain\r\nwet")[number % 2]
            rows.writerow([f'"{word}" {number}: {word * (number % 5 + 1)}'])
    return project
