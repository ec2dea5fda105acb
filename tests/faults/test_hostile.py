"""What somebody else wrote is read and never run, and leads nowhere outside of its folder."""

import json
import operator
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from PIL import Image
from safetensors.numpy import load_file, save_file

from pipeline import augment, extract, ingest, kinds
from pipeline.core.errors import DataError, HeadstartError
from pipeline.core.paths import HEAD, HEAD_WEIGHTS, MANIFEST, PLAN
from pipeline.heads.head import load_head
from pipeline.kinds.vector.parse import npy
from pipeline.serving import server
from pipeline.serving.classifier import Classifier
from pipeline.serving.server import Limits
from pipeline.serving.tables import values_of
from pipeline.sources import table as table_room
from pipeline.store.database import LAYOUT
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables import features
from pipeline.tables.manifest import read_manifest
from pipeline.tasks import TASKS
from tests.conftest import ROOT, Project
from tests.flows.toys import listening
from tests.helpers import picture_cases


class Deed:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("it was run",)


PICKLE = pickle.dumps({"features": Deed()})


@pytest.fixture
def copied(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own in which all stages have run."""
    folder = tmp_path / "project"
    shutil.copytree(bundled, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(folder / "cache" / "features"))
    return folder


def change(file: Path, **changes: object) -> None:
    """Change what stands in a JSON file; `None` takes a key out."""
    content = json.loads(file.read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    file.write_text(json.dumps(kept))


# Pickles


def test_the_pickle_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLE)  # noqa: S301 (it is ours)
    assert Path("it was run").exists()


READERS: dict[str, Callable[[], object]] = {
    "bundle/bundle.json": lambda: Classifier(Path("bundle")),
    "bundle/model.onnx": lambda: Classifier(Path("bundle")),
    "bundle/head.safetensors": lambda: Classifier(Path("bundle"), explains=True),
    "bundle/neighbours.safetensors": lambda: Classifier(Path("bundle"), explains=True),
    "bundle/neighbours.json": lambda: Classifier(Path("bundle"), explains=True),
    "models/head.safetensors": lambda: load_head(HEAD_WEIGHTS, HEAD),
    "models/head.json": lambda: load_head(HEAD_WEIGHTS, HEAD),
    "data/manifest.parquet": lambda: read_manifest(MANIFEST),
    "data/features/00.parquet": lambda: features.read_splits(
        Path("data/features"), read_manifest(MANIFEST), ["disc", "square"], ["train"]
    ),
    "data/raw/shapes/labels.csv": lambda: table_room.table(
        Path("data/raw/shapes"), "csv", kinds.named("image")
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pickle_in_place_of_a_file_is_refused(name: str, copied: Path) -> None:
    Path(name).unlink(missing_ok=True)
    Path(name).write_bytes(PICKLE)
    with pytest.raises(DataError) as refused:
        READERS[name]()
    assert len(str(refused.value).splitlines()) == 1
    assert not Path("it was run").exists()


def test_a_pickle_among_the_pictures_is_refused(project: Project) -> None:
    project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/x"})
    for i in range(12):
        path = Path("data/raw/x") / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_cases.png(Image.new("RGB", (8, 8), (i, 7, 9))))
    path.with_name("photo.pkl").write_bytes(PICKLE)
    ingest.ingest()
    assert len(pd.read_csv("data/refused.csv")) == 1
    assert not Path("it was run").exists()


def test_a_pickle_in_place_of_the_store_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / f"features-v{LAYOUT}.sqlite"
    file.write_bytes(PICKLE)
    with FeatureStore(tmp_path, None) as cache:
        assert cache.statistics().entries == 0
    assert not Path("it was run").exists()


def test_parquet_of_a_pickled_type_is_read_without_it(copied: Path) -> None:
    """Arrow's Python extension types are unpickled by old versions on reading (CVE-2023-47248)."""
    table = pq.read_table(MANIFEST)
    notes = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": PICKLE,
    }
    marked = [field.with_metadata(notes) for field in table.schema]
    pq.write_table(table.cast(pa.schema(marked)), MANIFEST)
    assert len(read_manifest(MANIFEST)) == len(table)
    assert not Path("it was run").exists()


# Bundles


def test_brackets_without_end_are_one_line(copied: Path) -> None:
    for file in (Path("bundle/bundle.json"), HEAD):
        file.write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"is damaged: .*recursion"):
        Classifier(Path("bundle"))
    with pytest.raises(DataError, match=r"do not describe a head: .*recursion"):
        load_head(HEAD_WEIGHTS, HEAD)


HOSTILE: dict[str, tuple[dict[str, object], str]] = {
    "nothing else": ({"classes": None}, "'classes' is missing"),
    "classes of numbers": ({"classes": [1, 2]}, "not a list of strings"),
    "classes twice": ({"classes": ["disc", "disc"]}, "one twice"),
    "more classes": ({"classes": ["disc", "ring", "square"]}, "3 probabilities"),
    "no preprocessing": ({"preprocessing": None}, "'preprocessing' is missing"),
    "a preprocessing of words": ({"preprocessing": {"resize": "x"}}, "is damaged"),
    "a picture of terabytes": (
        {"preprocessing": {"resize": 10**6, "crop": 10**6, "interpolation": "bicubic",
                           "mean": [0, 0, 0], "std": [1, 1, 1]}},
        "resize and crop",
    ),
    "a filter that is none": (
        {"preprocessing": {"resize": 8, "crop": 8, "interpolation": "__import__",
                           "mean": [0, 0, 0], "std": [1, 1, 1]}},
        "interpolation",
    ),
    "no power": ({"power": None}, "'power' is missing"),
    "a power of text": ({"power": "1; import os"}, "power is"),
    "a schema of a thousand letters": ({"schema": "x" * 1000}, "has schema 'x"),
    "no backbone": ({"backbone": None}, "'backbone' is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bundle_that_tells_nonsense_is_one_line(name: str, copied: Path) -> None:
    changes, said = HOSTILE[name]
    change(Path("bundle/bundle.json"), **changes)
    with pytest.raises(DataError, match=said) as refused:
        Classifier(Path("bundle"), explains=True)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


STRANGE = (None, -1, 1e400, "x", [1], {"a": 1})


def places_in(content: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON file."""
    parts = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in parts:
        yield (*here, name)
        if isinstance(value, dict | list):
            yield from places_in(value, (*here, name))


@pytest.mark.parametrize("task", TASKS)
def test_a_bundle_in_which_any_value_is_another_answers_or_is_one_line(
    task: str, by_hand: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = shutil.copytree(by_hand(task), tmp_path / "bundle")
    text = (bundle / "bundle.json").read_text()
    vector = npy(np.array([1, 0, 0, 0], np.float32))
    for *way, last in places_in(json.loads(text)):
        for value in STRANGE:
            about = json.loads(text)
            reduce(operator.getitem, way, about)[last] = value
            (bundle / "bundle.json").write_text(json.dumps(about))
            said = ""
            try:
                classifier = Classifier(bundle, explains=True)
                values_of(classifier, classifier.answer(vector, neighbours=1))
            except HeadstartError as error:
                said = str(error)
            assert len(said.splitlines()) <= 1, (way, last, value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"paths": None}, "paths is not a list"),
        ({"labels": [1] * 36}, "labels is not a list"),
        ({"paths": ["one"]}, "1 paths for 36 examples"),
    ],
)
def test_neighbours_that_do_not_belong_together(
    changes: dict[str, object], said: str, copied: Path
) -> None:
    change(Path("bundle/neighbours.json"), **changes)
    with pytest.raises(DataError, match=said):
        Classifier(Path("bundle"), explains=True)


@pytest.mark.parametrize("way", ["..", "absolute"])
def test_a_model_cannot_have_its_weights_from_outside_of_its_folder(way: str, copied: Path) -> None:
    secret = Path("secret.bin")
    secret.write_bytes(np.ones(2, dtype=np.float32).tobytes())
    weights = TensorProto(
        name="weights", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL
    )
    where = "../secret.bin" if way == ".." else str(secret.absolute())
    for key, value in (("location", where), ("offset", "0"), ("length", "8")):
        weights.external_data.add(key=key, value=value)
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [2])
    node = helper.make_node("Identity", ["weights"], ["probabilities"])
    graph = helper.make_graph([node], "hostile", [], [output], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path("bundle/model.onnx").write_bytes(model.SerializeToString())
    assert onnx.load("bundle/model.onnx", load_external_data=False)
    with pytest.raises(DataError, match=r"model\.onnx cannot be opened"):
        Classifier(Path("bundle"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bias": np.zeros(3, np.float32)}, "do not fit together"),
        ({"bias": np.zeros((2, 1), np.float32)}, "do not fit together"),
        ({"weight": np.zeros((2, 1280), np.int64)}, "finite float32"),
        ({"bias": np.array([np.nan, 0], np.float32)}, "finite float32"),
        ({"hidden_weight": np.zeros((4, 4), np.float32)}, "do not fit together"),
        ({"__class__": np.zeros(1, np.float32)}, "unexpected keyword"),
    ],
)
def test_tensors_that_are_no_head(changed: dict[str, np.ndarray], said: str, copied: Path) -> None:
    save_file(load_file(HEAD_WEIGHTS) | changed, HEAD_WEIGHTS)
    with pytest.raises(DataError, match=said):
        load_head(HEAD_WEIGHTS, HEAD)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"power": None}, "'power' is missing"),
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"classes": {"disc": 0, "square": 1}}, "not a list of strings"),
    ],
)
def test_a_description_that_is_none_of_a_head(
    changes: dict[str, object], said: str, copied: Path
) -> None:
    change(HEAD, **changes)
    with pytest.raises(DataError, match=said):
        load_head(HEAD_WEIGHTS, HEAD)


# Paths


def test_no_stage_reads_a_picture_outside_of_the_project(copied: Path) -> None:
    secret = copied.parent / "secret.png"
    secret.write_bytes(picture_cases.png(Image.new("RGB", (64, 64), "red")))
    manifest = pd.read_parquet(MANIFEST)
    training = manifest.index[manifest["split"] == "train"]
    for path in (str(secret), "../secret.png", "data/../../secret.png"):
        hostile = manifest.copy()
        hostile.loc[training, "path"] = path
        hostile.to_parquet(MANIFEST)
        with pytest.raises(DataError, match="leads out of the project"):
            augment.augment()
        with FeatureStore(default_folder(), None) as cache:
            cache.clear()  # or extract would need no picture
        pd.read_parquet(PLAN).to_parquet(PLAN)
        with pytest.raises(DataError, match="leads out of the project"):
            extract.extract()


@pytest.mark.parametrize(("source", "inside"), [("folder", ""), ("csv", "labels.csv")])
@pytest.mark.parametrize("absolute", [True, False])
def test_ingest_takes_no_folder_outside_of_the_project(
    project: Project, tmp_path: Path, source: str, inside: str, absolute: bool
) -> None:
    outside = tmp_path / "photos"
    (outside / "ant").mkdir(parents=True)
    (outside / inside if inside else outside / "ant/1.jpg").write_text("path,label\n")
    path = str(outside) if absolute else "../photos"
    project.set(**{"ingest.source": source, "ingest.path": path})
    with pytest.raises(DataError, match="leads out of the project; put your examples into data"):
        ingest.ingest()


def test_the_server_shows_no_picture_outside_of_its_folder(copied: Path) -> None:
    secret = copied.parent / "secret.png"
    secret.write_bytes(picture_cases.png(Image.new("RGB", (64, 64), "red")))
    known = json.loads(Path("bundle/neighbours.json").read_text())
    for number, path in enumerate((str(secret), "../secret.png", "/etc/passwd", "params.yaml")):
        known["paths"][number] = path
    Path("bundle/neighbours.json").write_text(json.dumps(known))
    app = server.application(Classifier(Path("bundle"), explains=True), Limits())
    with TestClient(app, base_url="http://localhost") as client:
        told = [client.get(f"/training/{number}") for number in range(5)]
    assert [reply.status_code for reply in told] == [404, 404, 404, 404, 200]
    assert "leads out" in told[0].json()["detail"]
    assert "not the one that the bundle was made with" in told[3].json()["detail"]


# Listening


def addresses(*arguments: str, seconds: float = 300) -> set[str]:
    """Where a server started without a word on its host listens; nothing outlives its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments, "--port", port],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found: set[str] = set()
        until = time.monotonic() + seconds
        while not found and process.poll() is None and time.monotonic() < until:
            found = listening(psutil.Process(process.pid))
            time.sleep(0.1)
        return found
    finally:
        started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        assert psutil.wait_procs(started, 10)[1] == []


def test_the_server_of_a_bundle_listens_on_loopback(
    bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundled)
    assert addresses("headstart", "serve", "bundle") == {"127.0.0.1"}
