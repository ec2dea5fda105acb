"""Ten pictures are added to a project: what each stage reads, computes and asks for again.

These counts are the small loop, which is what a user waits for every day. A change that raises one
edits this file, and its commit says why.
"""

import importlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import yaml
from PIL import Image

from pipeline.core.paths import MANIFEST, PARAMS
from pipeline.heads import closed_forms, fit, lbfgs
from pipeline.heads.discriminants import Sums
from pipeline.kinds.image import KIND, decode
from pipeline.sources import stamps
from pipeline.store.vectors import FeatureStore
from pipeline.tables.manifest import read_manifest

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
EXPECTED: dict[str, dict[str, int]] = {
    "ingest": {"files": 10, "inspected": 10, "calls of the store": 4, "entries read": 11},
    "augment": {"files": 12},  # of the contact sheet
    # Once for the backbone, with a call of the store for each shard that changes, and once for its
    # floor. Only the new rows of changed shards are read.
    "extract": {
        "files": 20,
        "inputs of networks": 20,
        "calls of the store": 17,
        "entries read": 81,
    },
    # The head, ten folds and the refit; the discriminants are of the backbone and of its floor.
    "train": {"heads": 12, "discriminants": 2},
    "evaluate": {},
    # New ones, of 94. The verdicts of the last run are one entry, which is read and written.
    "checks": {"pairs": 21, "calls of the store": 4, "entries read": 22},
    "bundle": {},
    # Two mistakes. Their features, and those of 240 pictures with hidden parts, are in the store.
    # The map makes thumbnails of the new pictures alone.
    "report": {"files": 19, "calls of the store": 3, "entries read": 72},
}
# Each penalty is fitted for five folds at once, until two in a row are much worse.
WITH_AUTO = EXPECTED["train"] | {"penalties": 22}
# Two heads in five folds each.
WITH_CHOICE = {"heads": 5, "discriminants": 5 + 12 + 2}


class Counts(Counter[str]):
    """What has been done since the last `clear`."""

    def wrap(
        self, patch: pytest.MonkeyPatch, owner: Any, name: str, count: Callable[..., dict[str, int]]
    ) -> None:
        """Add what `count` returns for the arguments of each call of a function."""
        function = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.update(count(*arguments, **named))
            return function(*arguments, **named)

        patch.setattr(owner, name, counted)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts()

    def file(path: Any, *_: Any, **__: Any) -> dict[str, int]:
        return {"files": int(str(path).startswith("data/raw/"))}

    def inputs(_: Any, __: Any, given: dict[str, Any]) -> dict[str, int]:
        (array, *_) = given.values()
        return {"inputs of networks": len(array) if array.ndim > 3 else 1}

    found.wrap(monkeypatch, os, "open", file)
    found.wrap(monkeypatch, decode, "inspect", lambda *_: {"inspected": 1})
    found.wrap(monkeypatch, onnxruntime.InferenceSession, "run", inputs)
    found.wrap(monkeypatch, fit, "_solve", lambda _, alike, *__: {"heads": len(alike)})
    found.wrap(monkeypatch, closed_forms, "multinomial", lambda *_: {"heads": 1})  # of subsets
    found.wrap(monkeypatch, Sums, "head", lambda *_: {"discriminants": 1})
    found.wrap(monkeypatch, lbfgs, "minimum", lambda *_: {"penalties": 1})
    found.wrap(monkeypatch, KIND, "copies", lambda pairs: {"pairs": len(pairs)})
    found.wrap(monkeypatch, FeatureStore, "get", lambda _, keys: {"entries read": len(keys)})
    for name in ("held", "get", "checksums", "put"):
        found.wrap(monkeypatch, FeatureStore, name, lambda *_: {"calls of the store": 1})
    return found


def run(stage: str) -> None:
    getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def test_ten_pictures_are_added(
    bundled: Path,
    tmp_path: Path,
    draw_picture: Callable[..., Image.Image],
    counts: Counts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(bundled, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(folder / "cache" / "features"))
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)  # as if nobody had changed a file for seconds
    manifest = read_manifest(MANIFEST)
    of_test = manifest["path"][(manifest["split"] == "test") & (manifest["label"] == "disc")]
    for path in map(Path, of_test[:2]):  # mistakes, which the report explains by hiding parts
        path.rename(path.parents[1] / "square" / path.name)
    for stage in STAGES:
        run(stage)
    for i in range(60, 70):
        file = Path("data/raw/shapes", ("disc", "square")[i % 2], f"{i}.png")
        draw_picture(i, 80 + i, 60 + i, square=bool(i % 2)).save(file)
    done = {}
    for stage in STAGES:
        counts.clear()
        run(stage)
        done[stage] = {name: count for name, count in counts.items() if count}
    del done["checks"]["files"]  # threads that are busy at once read some of them twice
    assert done == EXPECTED
    parameters = yaml.safe_load(PARAMS.read_text())
    of_choice = {"optimizer": ["lda", "lbfgs"], "layers": "auto"}
    for changes, expected in (({"weight_decay": "auto"}, WITH_AUTO), (of_choice, WITH_CHOICE)):
        changed = parameters["train"] | changes
        PARAMS.write_text(yaml.safe_dump(parameters | {"train": changed}))
        counts.clear()
        run("train")
        assert {name: count for name, count in counts.items() if count} == expected
