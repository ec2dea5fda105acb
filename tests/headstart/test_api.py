"""`headstart.load` on a real bundle: the answers of the command line, as Python objects."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headstart
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def model(bundled):
    return headstart.load(bundled / "bundle")


@pytest.fixture
def disc(bundled):
    return bundled / "data/raw/shapes/disc/0.png"


def test_predict_says_what_evaluate_said(model, bundled):
    evaluated = pd.read_csv(bundled / "reports/predictions.csv")
    predictions = model.predict([bundled / path for path in evaluated["path"]])
    assert [one.label for one in predictions] == evaluated["predicted"].tolist()
    assert [one.path for one in predictions] == [str(bundled / p) for p in evaluated["path"]]
    said = [one.probability for one in predictions]
    np.testing.assert_allclose(said, evaluated["probability"], atol=1e-5)
    assert list(predictions[0].probabilities) == model.classes == ["disc", "square"]
    assert sum(predictions[0].probabilities.values()) == pytest.approx(1)


def test_an_example_is_a_path_bytes_or_pixels(model, disc):
    pixels = np.asarray(Image.open(disc))
    ways = [str(disc), disc, disc.read_bytes(), pixels]
    predictions = model.predict(ways)
    assert len({json.dumps(one.probabilities) for one in predictions}) == 1
    assert [one.path for one in predictions] == [str(disc), str(disc), None, None]
    for alone in ways:
        assert [one.label for one in model.predict(alone)] == ["disc"]
    assert len(model.predict(np.stack([pixels, pixels]))) == 2
    assert len(model.predict(np.array([str(disc)]))) == 1
    assert len(model.predict(str(one) for one in (disc, disc))) == 2
    assert model.predict([]) == []


def test_a_refused_example_is_an_answer_that_nobody_overlooks(model, disc, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("<html>")
    bad = [broken, tmp_path / "nothing.png", b"", np.zeros((9, 9), np.uint8)]
    good, *refused = model.predict([disc, *bad, np.zeros((9, 9, 3), np.float32)])
    assert good.error is None
    assert f"{good!r} {refused[2]!r}" == (
        f"Prediction(path={str(disc)!r}, label='disc', probability={good.probability:.4f})"
        " Prediction(path=None, error='no bytes')"
    )
    assert [str(one.error)[:20] for one in refused] == [
        "not a picture in a k",
        "cannot be read (No s",
        "no bytes",
        "an array of uint8 [9",
        "an array of float32 ",
    ]
    for one in refused:
        for answer in ("label", "probability", "probabilities"):
            with pytest.raises(headstart.RefusedError, match=r"^[^\n]+$"):
                getattr(one, answer)
    with pytest.raises(headstart.RefusedError, match=r"broken\.png: not a picture in a known"):
        _ = refused[0].label


def test_what_is_no_example_at_all_is_a_type_error(model, disc):
    with pytest.raises(TypeError, match="example 1 is a int; give a path, the bytes of a file"):
        model.predict([disc, 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="example 0 is a list"):
        model.neighbours([disc])  # type: ignore[arg-type]


def test_embed_gives_the_features_that_the_head_sees(model, bundled, disc, tmp_path):
    features = model.embed([disc, disc.read_bytes()])
    assert features.shape == (2, model.about["backbone"]["dimension"])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[0], features[1])
    assert model.embed([]).shape == (0, features.shape[1])
    # The bundle's own list of training examples has this one's direction.
    near = model.neighbours(bundled / model.neighbours(disc)[0].path, k=1)[0]
    assert near.cosine == pytest.approx(1, abs=1e-3)
    with pytest.raises(headstart.RefusedError, match="nothing: cannot be read"):
        model.embed([disc, tmp_path / "nothing"])


def test_explain_is_a_png_and_neighbours_come_nearest_first(model, disc, monkeypatch):
    shown = Image.open(io.BytesIO(model.explain(disc)))
    assert (shown.format, shown.size) == ("PNG", (224, 224))
    near = model.neighbours(disc, k=4)
    assert [one.label for one in near][:2] == ["disc", "disc"]
    assert [one.cosine for one in near] == sorted((one.cosine for one in near), reverse=True)
    assert len(near) == 4
    with pytest.raises(headstart.ParamsError, match="k is 0; it should be 1 or more"):
        model.neighbours(disc, k=0)
    monkeypatch.setattr(type(model._classifier), "explains", False)  # as of vectors
    with pytest.raises(headstart.ParamsError, match="efficientnet_lite0 has no feature maps"):
        model.explain(disc)


def test_several_labels_are_told_with_their_probabilities(by_hand):
    model = headstart.load(by_hand("multilabel"))
    assert (model.task, model.classes) == ("multilabel", ["brick", "moss", "wood"])
    assert repr(model) == "<headstart.Model: 3 labels on identity>"
    both, none = model.predict(np.array([[1, 1, 0, 0], [0, 0, 0, 1]], np.float32))
    assert (both.labels, none.labels) == (("brick", "moss"), ())
    assert list(both.probabilities) == model.classes
    assert f"{both!r}" == "Prediction(path=None, labels=('brick', 'moss'))"
    for name in ("label", "probability", "numbers"):
        with pytest.raises(headstart.ParamsError, match=f"multilabel, which has no {name}; use"):
            getattr(both, name)


def test_numbers_are_told_by_name(by_hand, tmp_path):
    model = headstart.load(by_hand("regression"))
    assert (model.task, model.classes) == ("regression", ["age", "path"])
    (tmp_path / "bad.json").write_text("{}")
    np.save(tmp_path / "good.npy", np.array([1, 0.45, 0, 0], np.float32))
    good, bad = model.predict([tmp_path / "good.npy", tmp_path / "bad.json"])
    assert good.numbers == {"age": 74.5, "path": 0.25}
    assert f"{good!r}".endswith("good.npy', age=74.5, path=0.25)")
    for name in ("label", "labels", "probability", "probabilities"):
        with pytest.raises(headstart.ParamsError, match=r"regression, which has no .*use num"):
            getattr(good, name)
    with pytest.raises(headstart.RefusedError, match=r"bad\.json: "):
        _ = bad.numbers


def test_of_one_class_labels_are_this_class(model, disc):
    (prediction,) = model.predict(disc)
    assert (model.task, prediction.labels) == ("classification", ("disc",))
    with pytest.raises(headstart.ParamsError, match="classification, which has no numbers"):
        _ = prediction.numbers


def test_a_folder_that_is_no_bundle_is_one_line(tmp_path):
    with pytest.raises(headstart.DataError, match="is not a bundle; run `headstart repro`"):
        headstart.load(tmp_path)


def test_what_is_public_is_there_and_no_more():
    assert set(headstart.__all__) <= set(dir(headstart))
    for name in headstart.__all__:
        assert getattr(headstart, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = headstart.lod  # type: ignore[attr-defined]
    kinds = [value for name, value in vars(headstart).items() if name.endswith("Error")]
    assert all(issubclass(kind, headstart.HeadstartError) for kind in kinds)
    page = (ROOT / "docs" / "api.md").read_text()
    assert [
        name for name in headstart.__all__ if not re.search(rf"`(headstart\.)?{name}\b", page)
    ] == []


# What the base set does without; only the version of torch and the like is requested.
HEAVY = (
    *("albumentations", "cv2", "dvc", "matplotlib", "pandas", "prefect", "pyarrow"),
    *("scipy", "sklearn", "timm", "torch", "torchvision", "openvino"),
)
BLOCKED = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {HEAVY}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import headstart
assert 'numpy' not in sys.modules
"""


def base_only(script, *arguments):
    """What a script prints where only the base set can be imported."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + script, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_base_set_opens_a_bundle_and_embeds(bundled, disc, lite0, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORE", str(lite0.parent.parent))
    script = (
        "model = headstart.load(sys.argv[1])\n"
        "print(model.predict(sys.argv[2])[0].label, len(model.neighbours(sys.argv[2])),"
        " len(model.explain(sys.argv[2])) > 99, model.embed(sys.argv[2]).shape,"
        " headstart.Embedder('efficientnet_lite0').fit([]).transform(sys.argv[2]).shape)"
    )
    said = base_only(script, bundled / "bundle", disc)
    assert said.split("\n")[-2] == "disc 3 True (1, 1280) (1, 1280)"


def test_pillow_is_as_before_in_the_rest_of_the_process(bundled, disc):
    """A picture that a user opens afterwards is none of ours, however large."""
    script = f"""
import logging, sys, warnings
from concurrent.futures import ThreadPoolExecutor
from PIL import Image, TiffImagePlugin

def state():
    filters = [str(one) for one in warnings.filters if "PIL" in str(one[3])]
    limits = Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF
    return *limits, logging.getLogger("PIL").level, filters

before = state()
import headstart
model = headstart.load({str(bundled / "bundle")!r})
assert state() == before
with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(lambda _: model.predict({str(disc)!r})[0], range(8)))
assert {{one.label for one in answers}} == {{"disc"}}
from pipeline.kinds.image import warp
assert state() == before, (state(), before)
assert "albumentations.pytorch" not in sys.modules
assert "torch" not in sys.modules
Image.new("1", (11_000, 11_000)).save(file := {str(disc.parent / "large.png")!r})
try:
    Image.open(file).load()
finally:
    __import__("os").remove(file)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
