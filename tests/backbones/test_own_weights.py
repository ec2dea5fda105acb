"""`extract.weights: data/weights/FILE`, folders as on timm's hub, and what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline import kinds
from pipeline.backbones import catalogue, exports
from pipeline.core import params
from pipeline.core.backbone import Backbone
from pipeline.core.errors import ParamsError, WeightsError
from tests.conftest import Project

NAME = "timm:test_resnet"
FOLDER = Path("data/weights")


@pytest.fixture
def weights(project: Project) -> dict[str, Tensor]:
    """A network's state with its classifier; the folder is there."""
    (project.folder / FOLDER).mkdir()
    torch.manual_seed(7)
    state: dict[str, Tensor] = timm.create_model("test_resnet").state_dict()
    return state


def features(backbone: catalogue.TorchBackbone) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    side = backbone.preprocessing.crop
    pictures = torch.randint(256, (2, side, side, 3), dtype=torch.uint8, generator=drawn)
    with torch.inference_mode():
        found: Tensor = backbone.module(pictures)
    return found


def as_they_are(state: dict[str, Tensor], file: Path) -> None:
    save_file(state, file)


def in_a_checkpoint(state: dict[str, Tensor], file: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "model": wrapped}, file)


def as_our_bundle(state: dict[str, Tensor], file: Path) -> None:
    inside = {f"network.{name}": t for name, t in state.items() if not name.startswith("fc.")}
    save_file(inside | {"mean": torch.zeros(3), "std": torch.ones(3)}, file)


@pytest.mark.parametrize(
    ("write", "file", "printed"),
    [
        (as_they_are, "a.safetensors", "ignored fc.bias, fc.weight, which"),
        (in_a_checkpoint, "a.pt", "ignored fc.bias, fc.weight, which"),
        (as_our_bundle, "b.safetensors", ""),
        (lambda state, file: torch.save(state, file), "a.pth", "ignored fc.bias"),
    ],
)
def test_a_file_of_weights_is_the_network_that_it_is_of(
    weights: dict[str, Tensor],
    write: Callable[[dict[str, Tensor], Path], None],
    file: str,
    printed: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(weights, FOLDER / file)
    found = catalogue.load(Backbone.parse(NAME, f"data/weights/{file}"))
    network = timm.create_model("test_resnet", num_classes=0).eval()
    network.load_state_dict({n: t for n, t in weights.items() if not n.startswith("fc.")})
    wanted = catalogue._Frozen(network, found.preprocessing).eval()
    said = capsys.readouterr().out
    assert torch.equal(features(found), features(catalogue.replace(found, module=wanted)))
    assert printed in said
    assert bool(said) == bool(printed)


def test_the_export_stands_for_what_the_file_holds(weights: dict[str, Tensor]) -> None:
    torch.save(weights, FOLDER / "a.pt")
    (FOLDER / "b.pt").write_bytes((FOLDER / "a.pt").read_bytes())
    first = exports.file_of(Backbone.parse(NAME, "data/weights/a.pt"))
    assert exports.file_of(Backbone.parse(NAME, "data/weights/b.pt")) == first
    torch.save(weights | {"fc.bias": weights["fc.bias"] + 1}, FOLDER / "b.pt")
    other = exports.file_of(Backbone.parse(NAME, "data/weights/b.pt"))
    assert len({first, other, exports.file_of(Backbone.parse(NAME, "random"))}) == 3


def test_a_file_of_another_project_is_taken_as_timm_takes_it(weights: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0)
    state = dict(network.state_dict())
    torch.save({"visual_encoder_only": torch.zeros(1)}, FOLDER / "odd.pt")
    with pytest.raises(
        WeightsError, match=r"odd\.pt holds weights of a network other than timm:te"
    ):
        catalogue.load(Backbone.parse("timm:test_vit", "data/weights/odd.pt"))
    # Trained on larger pictures: timm scales the positions of 11 x 11 patches to 10 x 10.
    larger = torch.cat([state["pos_embed"], state["pos_embed"][:, :21]], dim=1)
    torch.save(state | {"pos_embed": larger}, FOLDER / "larger.pt")
    found = catalogue.load(Backbone.parse("timm:test_vit", "data/weights/larger.pt"))
    assert found.module.state_dict()["network.pos_embed"].shape == (1, 101, 64)


class Pickled:
    """What only code could bring back."""


def broken(weights: dict[str, Tensor], file: Path) -> None:
    torch.save(weights, file)
    file.write_bytes(file.read_bytes()[:50_000])


def cut_off(weights: dict[str, Tensor], file: Path) -> None:
    save_file(weights, file)
    file.write_bytes(file.read_bytes()[:50_000])


def not_finite(weights: dict[str, Tensor], file: Path) -> None:
    spoilt = weights["layer1.0.conv1.weight"].clone()
    spoilt[0, 0, 0, 0] = torch.nan
    torch.save(weights | {"layer1.0.conv1.weight": spoilt}, file)


def of_another(_: dict[str, Tensor], file: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), file)


def scripted(_: dict[str, Tensor], file: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(file)


@pytest.mark.parametrize(
    ("write", "file", "said"),
    [
        (lambda *_: None, "a.pt", "data/weights/a.pt does not exist"),
        (lambda *_: None, "a.safetensors", "data/weights/a.safetensors does not exist"),
        (broken, "a.pt", "data/weights/a.pt is damaged: "),
        (cut_off, "a.safetensors", "data/weights/a.safetensors is damaged: "),
        (not_finite, "a.pt", "holds numbers that are not finite, in layer1.0.conv1.weight"),
        (of_another, "a.safetensors", "holds weights of a network other than timm:test_resnet: "),
        (
            lambda w, f: torch.save(w | {"layer1.0.conv1.weight": torch.zeros(2)}, f),
            "a.pt",
            r"layer1.0.conv1.weight [2] instead of [",
        ),
        (
            lambda _, f: torch.save(Pickled(), f),
            "a.pt",
            "a.pt holds pickled code (test_own_weights.Pickled), which",
        ),
        (lambda _, f: torch.save([1, 2], f), "a.pt", "a.pt holds list, not a state dictionary"),
        (lambda _, f: f.write_bytes(b""), "a.pt", "data/weights/a.pt is damaged: "),
        (lambda _, f: f.write_bytes(b"no weights"), "a.pth", "a.pth is damaged, or was not"),
        (scripted, "a.pt", "a.pt is a TorchScript archive, which is code"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_wrong_with_a_file_is_one_line(
    weights: dict[str, Tensor], write: Callable[..., Any], file: str, said: str
) -> None:
    write(weights, FOLDER / file)
    with pytest.raises(WeightsError) as caught:
        catalogue.load(Backbone.parse(NAME, f"data/weights/{file}"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_dvc_has_is_told_how_to_get(weights: dict[str, Tensor]) -> None:
    (FOLDER / "a.pt.dvc").write_text("outs:\n")
    with pytest.raises(
        WeightsError, match=r"a\.pt does not exist; run `dvc pull data/weights/a\.pt"
    ):
        exports.file_of(Backbone.parse(NAME, "data/weights/a.pt"))


def test_a_folder_as_on_the_hub_is_a_network(weights: dict[str, Tensor]) -> None:
    folder = FOLDER / "mine"
    folder.mkdir()
    with pytest.raises(WeightsError, match=r"data/weights/mine/config\.json does not exist"):
        catalogue.load(Backbone.parse("timm:data/weights/mine"))
    (folder / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"mine is not a folder like those on timm's hub"):
        catalogue.load(Backbone.parse("timm:data/weights/mine"))
    given = {"input_size": [3, 96, 96], "crop_mode": "squash", "crop_pct": 1.0}
    config = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": given}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"mine has no weights: neither model\.safetensors"):
        catalogue.load(Backbone.parse("timm:data/weights/mine"))
    before = exports.file_of(Backbone.parse("timm:data/weights/mine", "pretrained"))
    save_file(weights, folder / "model.safetensors")
    assert exports.file_of(Backbone.parse("timm:data/weights/mine", "pretrained")) != before
    found = catalogue.load(Backbone.parse("timm:data/weights/mine"))
    assert found.preprocessing[:2] == (96, 96)
    assert found.preprocessing[5:] == ("squash",)
    assert torch.equal(
        found.module.state_dict()["network.conv1.0.weight"], weights["conv1.0.weight"]
    )


def test_a_hub_that_cannot_be_asked_is_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsError, match="weights of timm:hf-hub:a/b and its description"
    ) as caught:
        catalogue.load(Backbone.parse("timm:hf-hub:a/b"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extract.weights": "data/raw/a.pt"}, "should be pretrained, random or data/weights/FILE"),
        ({"extract.weights": "data/weights/a.txt"}, "should be pretrained, random or data/weig"),
        (
            {"extract.weights": "data/weights/../raw/a.pt"},
            "should be the path of a file in data/weights/",
        ),
        (
            {"extract.weights": "data/weights/a.pt", "extract.backbone": "timm:a+timm:b"},
            "weights data/weights/a.pt are for one network, but backbone timm:a+timm:b joins",
        ),
        (
            {"extract.weights": "data/weights/a.pt", "extract.backbone": "identity"},
            "backbone identity comes with its own weights",
        ),
        (
            {"extract.pooling": "mean", "extract.backbone": "timm:a+timm:b"},
            "pooling mean is for one network",
        ),
        ({"extract.pooling": "mean", "extract.backbone": "tf_idf"}, "backbone tf_idf has its own"),
        ({"extract.backbone": "onnx:data/raw/a.onnx"}, "onnx:data/weights/NAME.onnx"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(
    project: Project, changes: dict[str, Any], said: str
) -> None:
    project.set(**changes)
    with pytest.raises(ParamsError) as caught:
        params.load(kinds.schema)
    assert said in str(caught.value)


def test_the_licence_is_the_one_that_is_stated() -> None:
    for name in ("efficientnet_lite0", "efficientnet_lite2"):
        assert (
            exports.licence(Backbone.parse(name)) == timm.get_pretrained_cfg(f"tf_{name}").license
        )
    assert exports.licence(Backbone.parse("timm:vit_base_patch14_dinov2.lvd142m")) == "apache-2.0"
    assert exports.licence(Backbone.parse("torchvision:resnet18")).startswith("BSD")
    assert exports.licence(Backbone.parse("timm:resnet18", "data/weights/a.pt")) == "not stated"
    assert exports.licence(Backbone.parse("timm:resnet18", "random")) == "none needed"
