"""The transfer_gain stage: one table of what four stages measured, and what follows from it."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline import kinds
from pipeline.core import params
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import (
    FINETUNE,
    FROM_SCRATCH,
    LEARNING_CURVE,
    MANIFEST,
    RANK,
    TRANSFER_GAIN,
    TRANSFER_GAIN_PAGE,
)
from pipeline.tables.manifest import write_manifest
from pipeline.tables.task_names import CLASSIFICATION, REGRESSION
from pipeline.transfer_gain import transfer_gain
from tests.conftest import ROOT, SMALL, Project

NAME = "efficientnet_lite0"
ASKED = {f"{name}.run": ["asked"] for name in (*params.COMPARED, "transfer_gain")}


def figures(measure: str, value: float | None, wide: float = 0.02) -> dict[str, Any]:
    if value is None:
        return {"loss": 1.0, measure: None, "low": None, "high": None}
    return {"loss": 1.0, measure: value, "low": value - wide, "high": value + wide}


def lay(task: str = CLASSIFICATION, test: int = 20, **values: float | None) -> str:
    """What the four stages would leave of figures with these values; the measure's name."""
    measure = {CLASSIFICATION: "accuracy", REGRESSION: "r2"}[task]
    told = {"frozen": 0.9, "finetuned": 0.92, "scratch": 0.6, "floor": 0.5, "few": 0.7} | values
    splits = ["train"] * 60 + ["val"] * 20 + ["test"] * test
    rows = {"digest": [f"{i:064}" for i in range(len(splits))], "path": "", "label": "a"}
    write_manifest(pd.DataFrame(rows | {"split": splits}), "image", MANIFEST, task=task)
    of = {name: figures(measure, value) for name, value in told.items()}
    one = {"pictures": 20, "frozen": of["frozen"], "finetuned": of["finetuned"]}
    other = {"pictures": 20, **of["scratch"]}
    none = {"pictures": 0}
    finetuned = {"taken": True, "validation": one, "test": one if test else none}
    FINETUNE.write_text(json.dumps(finetuned))
    scratch = {"epoch": 3, "validation": other, "test": other if test else none}
    FROM_SCRATCH.write_text(json.dumps({"from_scratch": scratch}))
    ranked = [(NAME, 4_000_000, of["frozen"]), (f"random:{NAME}", 4_000_000, of["floor"])]
    ranked += [("mfcc", 0, of["few"])]  # which has no weights
    table = [
        {"backbone": name, f"val_{measure}": figure[measure], "parameters": parameters}
        | {end: figure[end] for end in ("low", "high")}
        for name, parameters, figure in ranked
    ]
    pd.DataFrame(table).to_csv(RANK, index=False)
    curve = [
        {"views": "original", "examples": count} | figure
        for count, figure in ((8, of["few"]), (60, of["frozen"]))
    ]
    pd.DataFrame(curve).to_csv(LEARNING_CURVE, index=False)
    return measure


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("transfer_gain: ") for line in lines]


def test_the_table_has_every_figure_with_the_number_of_examples(project: Project) -> None:
    lay()
    transfer_gain()
    table = pd.read_csv(TRANSFER_GAIN)
    assert list(table) == ["way", "name", "examples", "on", "accuracy", "low", "high", "source"]
    rows = list(table[["way", "name", "examples", "on", "accuracy"]].itertuples(index=False))
    assert [tuple(row) for row in rows] == [
        ("floor", "mfcc", 60, "validation", 0.7),
        ("floor", f"random:{NAME}", 60, "validation", 0.5),
        ("from scratch", NAME, 60, "test", 0.6),
        ("from scratch", NAME, 60, "validation", 0.6),
        ("frozen", NAME, 60, "test", 0.9),
        ("frozen", NAME, 60, "validation", 0.9),
        ("frozen", NAME, 60, "validation", 0.9),
        ("frozen", NAME, 60, "validation", 0.9),
        ("frozen", NAME, 8, "validation", 0.7),
        ("finetuned", NAME, 60, "test", 0.92),
        ("finetuned", NAME, 60, "validation", 0.92),
    ]
    assert set(table["source"]) == {
        *("rank", "finetune", "from_scratch", "learning_curve, original views"),
    }
    first = TRANSFER_GAIN.read_bytes(), TRANSFER_GAIN_PAGE.read_bytes()
    transfer_gain()
    assert (TRANSFER_GAIN.read_bytes(), TRANSFER_GAIN_PAGE.read_bytes()) == first


def test_a_gain_is_told_and_where_few_examples_do_what_all_do_from_scratch(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    lay()
    transfer_gain()
    lines = said(capsys)
    assert lines[0] == (
        "Transfer was worth it: accuracy on test examples is 0.9000 (0.8800 to 0.9200) with the"
        " network frozen, and 0.6000 (0.5800 to 0.6200) trained from scratch."
    )
    assert sum(line.startswith("Transfer was worth it") for line in lines) == 6
    assert lines[-2] == (
        "Finetuning is not told from leaving the network frozen: accuracy on test examples is"
        " 0.9200 (0.9000 to 0.9400) with the network finetuned, and 0.9000 (0.8800 to 0.9200) with"
        " the network frozen."
    )
    assert lines[-1].startswith("With 8 training examples the frozen network is already better")
    assert not any("Negative" in line for line in lines)
    page = TRANSFER_GAIN_PAGE.read_text()
    assert all(f"- {line}\n" in page for line in lines)
    assert f"| floor | random:{NAME} | 60 | validation | 0.5000 | 0.4800 to 0.5200 | rank |" in page


def test_negative_transfer_is_a_warning_only_where_intervals_do_not_overlap(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    lay(scratch=0.945, floor=0.93)  # above the frozen network, and not above the finetuned one
    transfer_gain()
    warnings = [line for line in said(capsys) if line.startswith("warning: ")]
    assert warnings == [
        "warning: Negative transfer: accuracy on test examples is 0.9000 (0.8800 to 0.9200) with"
        " the network frozen, and 0.9450 (0.9250 to 0.9650) trained from scratch."
    ]
    lay(floor=0.97)
    transfer_gain()
    lines = said(capsys)
    assert [line.startswith("warning: Negative") for line in lines[:3]] == [True, True, False]
    assert f"with the floor random:{NAME}" in lines[0]


def test_without_test_examples_validation_is_compared_and_what_is_not_defined_is_left_out(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = lay(REGRESSION, test=0, finetuned=None)
    transfer_gain()
    table = pd.read_csv(TRANSFER_GAIN)
    assert measure == "r2"
    assert "r2" in table
    assert set(table["on"]) == {"validation"}
    assert "finetuned" not in set(table["way"])
    lines = said(capsys)
    assert lines[0].startswith("Transfer was worth it: R² on validation examples is 0.9")
    assert not any("inetuning" in line for line in lines)


def test_a_figure_that_is_not_there_is_one_clear_line(project: Project) -> None:
    lay()
    RANK.unlink()
    with pytest.raises(DataError, match=r"^reports/rank\.csv is not here; run the rank stage"):
        transfer_gain()
    lay()
    FINETUNE.write_text("{")
    with pytest.raises(DataError, match=r"^reports/finetune\.json is not readable \(.*\); run the"):
        transfer_gain()
    lay(REGRESSION)
    write_manifest(pd.read_parquet(MANIFEST), "image", MANIFEST)
    with pytest.raises(DataError, match=r"^reports/learning_curve\.csv has no accuracy; run the"):
        transfer_gain()


def test_the_four_stages_have_to_be_asked_for_too(project: Project) -> None:
    (project.folder / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    for folder in ("plugins", "data/weights"):
        (project.folder / folder).mkdir(exist_ok=True)
    asked = ASKED | {"rank.run": [], "finetune.run": []}
    project.set(**asked)
    words = r"set rank\.run and finetune\.run to \[asked\] too, or transfer_gain\.run to \[\]$"
    with pytest.raises(ParamsError, match=words):
        params.check_file(kinds.schema)
    with pytest.raises(ParamsError, match=words):
        transfer_gain()
    project.set(**ASKED)
    params.check_file(kinds.schema)
    document = yaml.safe_load(Path("params.yaml").read_text())
    del document["transfer_gain"]  # a file of before there was this stage
    Path("params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ParamsError, match=r"add `transfer_gain: \{run: \[\]\}`$"):
        params.check_file(kinds.schema)


@pytest.mark.slow
def test_on_what_the_stages_truly_write(
    project: Project,
    small_backbone: Path,
    lite0: Path,
    draw_picture: Callable[..., Image.Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 1}
    small = {"learning_curve.draws": 2, "finetune.epochs": 2, "finetune.blocks": 1}
    small |= {"rank.backbones": [NAME, "random:timm:test_resnet"]}
    project.set(**knobs, **SMALL, **small, **ASKED)
    for i in range(60):
        path = Path("data/raw/shapes") / ("disc", "square")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, square=bool(i % 2)).save(path)
    for stage in ("ingest", "augment", "extract", "train", *params.COMPARED):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    capsys.readouterr()
    transfer_gain()
    table = pd.read_csv(TRANSFER_GAIN)
    ranked = pd.read_csv(RANK).set_index("backbone")["val_accuracy"]
    (floor,) = table[table["way"] == "floor"].itertuples()
    assert (floor.name, floor.accuracy) == ("random:timm:test_resnet", ranked[floor.name])
    scratch = json.loads(FROM_SCRATCH.read_text())["from_scratch"]
    on_test = table[(table["way"] == "from scratch") & (table["on"] == "test")]
    assert on_test["accuracy"].tolist() == [scratch["test"]["accuracy"]]
    curve = pd.read_csv(LEARNING_CURVE)
    assert table["source"].str.startswith("learning_curve").sum() == len(curve)
    assert table.notna().all(axis=None)
    lines = said(capsys)
    assert len(lines) >= 4
    assert "from scratch" in lines[0]
