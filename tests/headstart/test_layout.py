"""`headstart map`: a layout that stays as it is when examples are added."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headstart import map as layout
from pipeline.core.errors import DataError, RunError
from pipeline.core.paths import CHECKS, CHECKS_MAP, LANDMARKS, MAP
from pipeline.quality import landmarks
from pipeline.quality.landmarks import GRID

TABLE = "data/raw/table.parquet"


def checked(*stages):
    """Run stages and then checks; the table of the map."""
    for stage in (*stages, "checks"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    return pd.read_parquet(CHECKS_MAP).set_index("digest")


def test_old_points_stay_and_new_ones_are_among_their_neighbours(vectors, capsys, monkeypatch):
    every = pd.read_parquet(TABLE)
    every[:40].to_parquet(TABLE)
    axes = checked("ingest", "augment", "extract")
    before = CHECKS_MAP.read_bytes()
    with pytest.raises(RunError, match="the folder map is missing: run `headstart upgrade`"):
        layout.run()
    MAP.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(layout, "LEAST", 41)
        with pytest.raises(DataError, match="at least 41 examples, and there are 40"):
            layout.run()
    checked()
    assert CHECKS_MAP.read_bytes() == before
    recorded = {"stages": {"extract": {"params": {"params.yaml": {"extract": {}}}}}}
    extract = recorded["stages"]["extract"]["params"]["params.yaml"]["extract"]
    extract["backbone"] = "histogram"
    Path("dvc.lock").write_text(yaml.safe_dump(recorded))
    with pytest.raises(RunError, match=r"features are those of histogram .* repro` first"):
        layout.run()
    extract["backbone"] = "identity"  # older than `weights`
    Path("dvc.lock").write_text(yaml.safe_dump(recorded))
    layout.run()
    written = LANDMARKS.read_bytes()
    layout.run()
    assert LANDMARKS.read_bytes() == written
    placed = checked()
    assert "map/landmarks.parquet has the places of 40 examples" in capsys.readouterr().out
    assert placed["landmark"].all()
    assert placed[["x", "y"]].to_numpy().max() == GRID
    assert (placed[["x", "y"]] != axes[["x", "y"]]).to_numpy().any()

    every.to_parquet(TABLE)
    more = checked("ingest", "augment", "extract")
    assert (more.loc[placed.index, ["x", "y"]] == placed[["x", "y"]]).all(axis=None)
    new = more[~more["landmark"]]
    assert len(new) == 20
    near = more.loc[[name for name in new["near_1"] if name], ["x", "y"]].to_numpy()
    apart = np.linalg.norm(new[["x", "y"]].to_numpy() - near, axis=1)
    others = np.linalg.norm(new[["x", "y"]].to_numpy() - near[::-1], axis=1)
    assert np.median(apart) < 0.75 * np.median(others)
    every[:50].to_parquet(TABLE)
    fewer = checked("ingest", "augment", "extract")
    assert (fewer[["x", "y"]] == more.loc[fewer.index, ["x", "y"]]).all(axis=None)


def test_a_file_that_does_not_fit_is_a_warning_and_the_map_shows_the_axes(vectors, capsys):
    axes = checked("ingest", "augment", "extract")
    MAP.mkdir()
    layout.run()
    made, digests = "identity (6 features)", axes.index
    table, whole = pq.read_table(LANDMARKS), LANDMARKS.read_bytes()
    assert landmarks.read(LANDMARKS, digests, made)[1] == ""
    lines = [landmarks.read(LANDMARKS, [f"{n:064x}" for n in range(60)], made)[1]]
    lines += [landmarks.read(LANDMARKS, digests, "minilm (384 features)")[1]]
    nowhere = pa.array([float("nan"), *[1.0] * (len(table) - 1)])
    for other in (
        table.drop_columns("x"),
        table[::-1],
        table[:0],
        pa.table({"digest": digests}),
        table.set_column(1, "x", nowhere),
    ):
        pq.write_table(other, LANDMARKS)
        lines += [landmarks.read(LANDMARKS, digests, made)[1]]
    LANDMARKS.write_bytes(whole[:-9])
    capsys.readouterr()
    again = checked()
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "warning" in text]
    lines += [line.removeprefix("checks: warning: ")]
    assert lines == [
        f"map/landmarks.parquet {why}, so the map shows the principal axes: run `headstart map`"
        " again, or delete the file"
        for why in (
            "is of other examples",
            "was made with identity (6 features), not with minilm (384 features)",
            *6 * ["is damaged"],
        )
    ]
    assert lines[-1] in (CHECKS / "notes.csv").read_text()
    assert (again[["x", "y"]] == axes[["x", "y"]]).all(axis=None)
