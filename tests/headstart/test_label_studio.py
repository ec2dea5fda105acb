"""Label Studio: the tasks that it gets, and the labels in its export."""

import csv
import json
import os
import subprocess
import wave
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from headstart import label, label_studio, next
from headstart.label_studio import CONFIG, TASKS_FILE
from headstart.pool import opened
from headstart.proposing import EACH, MARGIN, RANDOM, Guess, Proposal
from pipeline import kinds
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import MANIFEST
from pipeline.ingest import ingest
from pipeline.tables.manifest import read_manifest

EXPORT, FOLDER = Path("export.json"), Path("ls")
LABEL_STUDIO = "HEADSTART_LABEL_STUDIO_PYTHON"  # a Python that has label-studio-sdk
VALID = """
import json, os, sys
from label_studio_sdk._extensions.label_studio_tools.core.utils import io
from label_studio_sdk.label_interface import LabelInterface
face = LabelInterface(open("ls/config.xml", encoding="utf-8").read())
face.validate()
for task in json.load(open("ls/tasks.json", encoding="utf-8")):
    assert face.validate_task({"data": task["data"]})
    for one in task.get("predictions", ()):
        assert face.validate_prediction(one, return_errors=True) == []
        one["result"][0]["value"]["choices"] = ["of no class"]
        assert not face.validate_prediction(one)
    shown = next(iter(task["data"].values()))
    if shown.startswith("/data/local-files/"):
        assert os.path.samefile(io.get_local_path(shown), task["data"]["path"])
print(json.dumps(face.generate_sample_annotation()))
"""


def tasks():
    found: list[dict[str, Any]] = json.loads((FOLDER / TASKS_FILE).read_text())
    return found


def exported(asked, *labels):
    """Write an export: for each task the labels of its annotators; none if it was skipped."""
    written = []
    for number, (task, given) in enumerate(zip(asked, labels, strict=True), 1):
        region = {"from_name": "label", "to_name": "example", "type": "choices", "id": "aB1"}
        made = [{"result": [region | {"value": {"choices": [one]}}]} for one in given if one]
        made = [one | {"was_cancelled": False} for one in made]
        made += [{"result": [], "was_cancelled": True}] * (len(given) - len(made))
        written.append({"id": number, "data": task["data"], "annotations": made, "project": 3})
    EXPORT.write_text(json.dumps(written))


def rows_in(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_pictures_go_to_label_studio_and_come_back_as_a_table(shapes, capsys):
    with pytest.raises(ParamsError, match="name the classes with --classes"):
        next.run(shapes, 10, label_studio=FOLDER)
    with pytest.raises(ParamsError, match=r"params\.yaml, which is a file; give a folder"):
        next.run(shapes, 10, label_studio=Path("params.yaml"))
    next.run(shapes, 10, label_studio=FOLDER, classes="disc,square")
    said = capsys.readouterr().out.splitlines()
    root = shapes.resolve().parent
    assert said[-3:] == [
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true",
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}",
        f"next: export JSON, then run `headstart label {shapes} --from-label-studio FILE`",
    ]
    asked = tasks()
    assert "data/local-files/?d=shapes/sub%2Cfolder" in asked[0]["data"]["image"]
    truth = [["disc", "square"][int(Path(one["data"]["path"]).stem) % 2] for one in asked]
    exported(asked, [], [""], ["disc", "square"], *([one, one] for one in truth[3:]))
    label.run(shapes, from_label_studio=EXPORT)
    label.run(shapes, from_label_studio=EXPORT)  # each label is written once
    first, second = capsys.readouterr().out.split("0 labels added from 10 tasks")
    for line in (
        "label: 7 labels added from 10 tasks",
        "label: 2 left out, without a label: task 1, task 2",
        "label: 1 left out, labelled differently by several people: task 3 (disc or square)",
        "next: headstart repro",
    ):
        assert line in first
        assert line in second or "7 labels added" in line
    assert second.startswith("; 7 were in data/raw/shapes/labels.csv before\n")
    rows = rows_in(shapes / "labels.csv")
    whys = [one["data"]["why"] for one in asked[3:]]
    assert [row["label"] for row in rows] == truth[3:]
    assert [row["_why"] for row in rows] == whys
    assert [row["split"] == "train" for row in rows] == [why != RANDOM for why in whys]
    assert {row["split"] for row in rows if row["_why"] == RANDOM} == {"test", "val"}
    ingest()
    assert len(read_manifest(MANIFEST)) == 7

    exported(asked[3:5], ["disc"], ["square"])  # another opinion, and one that agrees or not
    label.run(shapes, from_label_studio=EXPORT)
    assert "left out, labelled differently in data/raw/shapes/labels.csv: task" in (
        capsys.readouterr().out
    )
    assert rows_in(shapes / "labels.csv") == rows
    asked[0]["data"]["digest"] = "0" * 64
    exported(asked[:1], ["disc"])
    with pytest.raises(DataError, match=f"no task of the export is of an example in {shapes}"):
        label.run(shapes, from_label_studio=EXPORT)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not a Label Studio export"),
        ('{"a": 1}', "is not a Label Studio export"),
        (
            '[{"image": "a.png", "label": "disc"}]',
            "is not a Label Studio export in the format JSON",
        ),
        (
            '[{"data": {}, "annotations": [{"result": [{"from_name": "label"}]}]}]',
            "is not a Label Studio export",
        ),
        (
            '[{"data": {}, "annotations": [{"result": [{"from_name": "label", "value":'
            ' {"choices": ["a\\u0007b"]}}]}]}]',
            "cannot be the name of a class",
        ),
    ],
)
def test_what_is_no_export_is_a_line(shapes, text, line):
    if text:
        EXPORT.write_text(text)
    with pytest.raises(DataError, match=line):
        label.run(shapes, from_label_studio=EXPORT)
    assert not (shapes / "labels.csv").exists()


def test_it_shows_no_vectors_and_labels_no_numbers(vectors):
    message = "Label Studio can show the kinds image, text, audio, but"
    with pytest.raises(ParamsError, match=message):
        next.run(Path("data/pool.parquet"), label_studio=FOLDER)
    vectors.set(**{"ingest.kind": "image", "ingest.task": "multilabel"})
    with pytest.raises(ParamsError, match="is for classes, but"):
        next.run(Path("data/pool.parquet"), label_studio=FOLDER)


def pool_of(kind, folder):
    """A pool of six pictures, texts or sounds with awkward names."""
    place = folder / f"pool of {kind}"
    place.mkdir()
    for number in range(6):
        file = place / f"{number} é#&?%41"
        if kind == "image":
            Image.new("RGB", (40, 40 + number)).save(file.with_name(f"{file.name}.png"))
        elif kind == "audio":
            noise = np.random.default_rng(number).integers(-9999, 9999, 9000).astype("<i2")
            with wave.open(f"{file}.wav", "wb") as sound:
                sound.setparams((1, 2, 16000, 0, "NONE", ""))
                sound.writeframes(noise.tobytes())
    if kind == "text":
        place /= "texts.csv"
        place.write_text("text\n" + "".join(f'"<b>{one}</b>, ""é"" & more"\n' for one in range(6)))
    return opened(place, kinds.named(kind), "next")


def written(kind, folder, monkeypatch):
    """Write the tasks of a pool, with predictions of classes with awkward names."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(folder / "store"))
    pool = pool_of(kind, folder)
    found = [Proposal(at, RANDOM if at % EACH == 4 else MARGIN) for at in range(6)]
    guess = Guess(['<a> & "b"', "é"] * 3, np.linspace(0.5, 1, 6), np.linspace(0, 1, 6))
    label_studio.write(FOLDER, pool, kind, found, pool.examples, guess, {"third's"})
    return pool.place


@pytest.mark.parametrize("kind", ["image", "text", "audio"])
def test_tasks_have_predictions_unless_they_are_random(kind, tmp_path, monkeypatch, capsys):
    place = written(kind, tmp_path, monkeypatch)
    tag, choices = ElementTree.parse(FOLDER / CONFIG).getroot()  # noqa: S314
    assert (tag.tag, tag.get("value")) == (kind.capitalize(), f"${kind}")
    assert [one.get("value") for one in choices] == ['<a> & "b"', "third's", "é"]
    asked = tasks()
    assert [len(one.get("predictions", ())) for one in asked] == [1, 1, 1, 1, 0, 1]
    assert asked[1]["predictions"][0]["score"] == 0.6
    assert asked[1]["predictions"][0]["result"][0]["value"] == {"choices": ["é"]}
    shown = asked[0]["data"][kind]
    if kind == "text":
        assert shown == '<b>0</b>, "é" & more'
        assert "LOCAL_FILES" not in capsys.readouterr().out
    else:
        assert shown.startswith(f"/data/local-files/?d=pool%20of%20{kind}/0%20%C3%A9%23%26%3F%2541")
    exported(asked, *[["é"]] * 6)
    label.run(place, kind=kind, from_label_studio=EXPORT)
    rows = rows_in(place.with_name("labels.csv") if kind == "text" else place / "labels.csv")
    assert [row["split"] for row in rows] == ["train"] * 4 + ["test", "train"]
    assert {row["label"] for row in rows} == {"é"}
    if kind == "text":
        assert rows[0]["text"] == shown


@pytest.mark.slow
@pytest.mark.skipif(LABEL_STUDIO not in os.environ, reason="label-studio-sdk is not installed")
@pytest.mark.parametrize("kind", ["image", "text", "audio"])
def test_the_tools_of_label_studio_accept_them(kind, tmp_path, monkeypatch):
    written(kind, tmp_path, monkeypatch)
    asked = [os.environ[LABEL_STUDIO], "-c", VALID]
    environment = os.environ | {"LOCAL_FILES_DOCUMENT_ROOT": str(tmp_path)}
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    annotation = json.loads(done.stdout)
    EXPORT.write_text(json.dumps([one | {"annotations": [annotation]} for one in tasks()]))
    assert all(len(one.labels) == 1 for one in label_studio.read(EXPORT))
