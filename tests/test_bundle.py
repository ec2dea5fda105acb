"""A bundle answers as the stages did, in ONNX and in PyTorch, and says what it was made of."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.numpy import load_file

from pipeline.core.errors import DataError
from pipeline.core.paths import MANIFEST, METRICS
from pipeline.heads.head import Head, as_bytes
from pipeline.kinds.image import decode
from pipeline.serving import card, torch_module
from pipeline.serving.classifier import Classifier
from pipeline.serving.description import Bundle
from pipeline.serving.novelty import Novelty
from tests.conftest import ROOT, SMALL
from tests.helpers.bundles import OUTPUTS, write_by_hand


@pytest.fixture
def project(bundled, monkeypatch):
    monkeypatch.chdir(bundled)
    monkeypatch.setenv("HEADSTART_STORE", str(bundled / "cache" / "features"))
    return bundled


@pytest.fixture(scope="module")
def evaluated(bundled):
    """What `evaluate` said of each test picture: files, and probabilities [n, classes]."""
    table = pd.read_csv(bundled / "reports" / "predictions.csv")
    return [bundled / path for path in table["path"]], table.filter(like="p(").to_numpy()


def test_it_answers_as_evaluate_did(project, evaluated):
    files, wanted = evaluated
    classifier = Classifier(Path("bundle"))
    answers = [classifier.answer(file.read_bytes()) for file in files]
    found = np.stack([answer.probabilities for answer in answers])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert [answer.best for answer in answers] == wanted.argmax(axis=1).tolist()


def test_raw_pixels_of_any_size_give_the_same_answers_in_onnx_and_in_pytorch(project, evaluated):
    files, wanted = evaluated
    session = onnxruntime.InferenceSession("bundle/model.onnx")
    model = torch_module.load(Path("bundle"))
    sizes = set()
    for file, evaluated_as in zip(files, wanted, strict=True):
        pixels = decode.pixels(decode.decode(file.read_bytes())).copy()
        sizes.add(pixels.shape)
        (in_onnx,) = session.run(["probabilities"], {"picture": pixels})
        with torch.inference_mode():
            in_torch = model(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(in_onnx, in_torch, atol=1e-3)
        np.testing.assert_allclose(in_onnx, evaluated_as, atol=2e-3)
    assert len(sizes) > 5


def test_a_head_with_a_hidden_layer_is_read_for_pytorch(project, tmp_path):
    shutil.copytree("bundle", tmp_path / "bundle")
    random = np.random.default_rng(0)
    shapes = (2, 16), (2,), (16, 1280), (16,)
    head = Head(*(random.standard_normal(shape).astype(np.float32) for shape in shapes))
    (tmp_path / "bundle" / "head.safetensors").write_bytes(as_bytes(head))
    features = random.standard_normal((3, 1280)).astype(np.float32)
    answered = torch_module.load(tmp_path / "bundle").head(torch.from_numpy(features))
    np.testing.assert_allclose(answered, head.logits(features), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def of_pictures(tmp_path_factory, small_backbone):
    """Makes a bundle of pictures for a task, with a head written by hand, in a new folder."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((3, 96)).astype(np.float32)
    backbone = {"backbone": SMALL["extract.backbone"], "weights": SMALL["extract.weights"]}

    def write(task, factor=1.0):
        outputs = len(OUTPUTS[task])
        head = Head(weight[:outputs] * np.float32(factor), np.zeros(outputs, np.float32))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HEADSTART_STORE", str(small_backbone.parent.parent))
            return write_by_hand(tmp_path_factory.mktemp(task), task, head, "image", **backbone)

    return write


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_several_labels_and_numbers_are_the_same_in_onnx_and_in_pytorch(
    of_pictures, draw_picture, task
):
    bundle = of_pictures(task)
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    model = torch_module.load(bundle)
    name = "numbers" if task == "regression" else "probabilities"
    for seed in range(3):
        pixels = np.array(draw_picture(seed, 200, 180))
        (in_onnx,) = session.run([name], {"picture": pixels})
        with torch.inference_mode():
            in_torch = model(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(in_torch, in_onnx, rtol=1e-3, atol=1e-3)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["task"]) == task


def test_what_raises_a_number_is_shown_whatever_its_unit(of_pictures, draw_picture):
    data = io.BytesIO()
    draw_picture(3, 200, 180).save(data, "PNG")

    def heat(task, factor=1.0):
        classifier = Classifier(of_pictures(task, factor), explains=True)
        answer = classifier.answer(data.getvalue(), heat=True)
        assert answer.best == 0
        return np.asarray(Image.open(io.BytesIO(answer.heat.data))).astype(int)

    shown = heat("regression")
    np.testing.assert_array_equal(heat("regression", 2.0**-20), shown)  # in another unit
    # What raises a number lowers its opposite.
    assert np.corrcoef(shown.ravel(), heat("regression", -1.0).ravel())[0, 1] < 0.8
    # The log-odds of this label are that number, but for the temperature.
    np.testing.assert_allclose(heat("multilabel"), shown, atol=8)


def test_features_and_maps_come_out_of_the_model(project, evaluated):
    session = onnxruntime.InferenceSession("bundle/model.onnx")
    pixels = decode.pixels(decode.decode(evaluated[0][0].read_bytes()))
    features, maps = session.run(["features", "maps"], {"picture": pixels})
    assert maps.shape == (1280, 7, 7)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) ** 0.5, features, atol=1e-4)


def test_a_training_picture_is_its_own_nearest_neighbour(project):
    manifest = pd.read_parquet(MANIFEST)
    row = manifest[manifest["split"] == "train"].iloc[3]
    classifier = Classifier(Path("bundle"), explains=True)
    answer = classifier.answer(Path(row["path"]).read_bytes(), heat=True, neighbours=3)
    nearest = answer.neighbours[0]
    assert (nearest.path, nearest.label) == (row["path"], row["label"])
    assert nearest.cosine == pytest.approx(1, abs=1e-3)
    cosines = [neighbour.cosine for neighbour in answer.neighbours]
    assert cosines == sorted(cosines, reverse=True)
    assert answer.heat.media_type == "image/png"
    with Image.open(io.BytesIO(answer.heat.data)) as heat:
        assert (heat.size, heat.mode) == ((224, 224), "RGB")


def test_it_says_what_it_was_made_of(project):
    about = json.loads(Path("bundle/bundle.json").read_text())
    assert Bundle.read(Path("bundle")).content() == about
    assert about["classes"] == ["disc", "square"]
    assert about["data"]["manifest"] == hashlib.sha256(MANIFEST.read_bytes()).hexdigest()
    assert sum(about["data"]["pictures"].values()) == 60
    assert about["metrics"] == json.loads(METRICS.read_text())
    assert about["calibration"]["temperature"] > 0
    code = hashlib.sha256()
    for file in sorted((ROOT / "pipeline/kinds/image").glob("*.py")):
        code.update(f"kinds/image/{file.name}".encode() + file.read_bytes())
    assert about["code"]["pipeline/kinds/image"] == code.hexdigest()
    notes = onnxruntime.InferenceSession("bundle/model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == about["classes"]


def test_nothing_in_it_is_a_pickle(project):
    names = {file.name for file in Path("bundle").iterdir()}
    tensors = {"backbone.safetensors", "head.safetensors", "neighbours.safetensors"}
    assert names == tensors | {"README.md", "bundle.json", "model.onnx", "neighbours.json"}
    for name in tensors:
        assert load_file(Path("bundle") / name)


def test_a_second_run_writes_the_same_bytes_and_loads_no_torch(project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "again", symlinks=True)
    monkeypatch.chdir(tmp_path / "again")
    before = {file.name: file.read_bytes() for file in Path("bundle").iterdir()}
    script = (
        "import sys; from pipeline.bundle import bundle; bundle(); print('torch' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "False"
    assert {file.name: file.read_bytes() for file in Path("bundle").iterdir()} == before


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("bundle.json", None, "is not a bundle"),
        ("bundle.json", b"{", "is damaged"),
        ("bundle.json", b'{"schema": 99}', "has schema 99"),
        ("model.onnx", None, "cannot be opened"),
        ("model.onnx", b"\x08\x0a", "cannot be opened"),
        ("head.safetensors", b"", "do not describe a head"),
        ("neighbours.safetensors", b"\x00", "cannot be read"),
        ("neighbours.json", b"[]", "is damaged"),
    ],
)
def test_a_damaged_bundle_is_one_line(project, tmp_path, file, content, said):
    broken = tmp_path / "broken"
    shutil.copytree("bundle", broken)
    (broken / file).unlink() if content is None else (broken / file).write_bytes(content)
    with pytest.raises(DataError, match=said) as raised:
        Classifier(broken, explains=True)
    assert "\n" not in str(raised.value)


def test_its_model_card_is_one_of_the_hub(bundled: Path) -> None:
    found = ModelCard.load(bundled / "bundle/README.md")
    assert found.data.library_name == "headstart"
    assert found.data.pipeline_tag == "image-classification"
    figures = json.loads((bundled / "reports/metrics.json").read_text())
    ends = figures["interval"]["accuracy"]
    row = f"| accuracy | {figures['test']['accuracy']:g} | {ends['low']:g} to {ends['high']:g} |"
    assert row in found.text
    assert "2 classes: disc, square." in found.text
    assert "licence of these weights is apache-2.0" in found.text
    assert "paths of the training pictures" in found.text
    assert "efficientnet_lite0 (pretrained), which was not trained further." in found.text


def test_its_model_card_says_what_was_finetuned_and_what_detects_no_novelty(bundled: Path) -> None:
    bundle = Bundle.read(bundled / "bundle")
    tuned = replace(bundle, backbone=replace(bundle.backbone, weights="finetuned"))
    assert "(finetuned), which was trained further." in card.card(tuned)
    few = replace(bundle, novelty=Novelty(2, None, of_means=True))
    assert "It cannot detect inputs that are unlike" in card.card(few)
    assert "It reports inputs that are unlike" in card.card(bundle)
