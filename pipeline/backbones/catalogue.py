"""Load backbones in PyTorch by name: the pretrained, frozen network h in f(x) = g(h(x; φ)).

Each backbone carries its preprocessing, so that callers do not have to know it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..core import plugins
from ..core.backbone import TRAINED_TEXTS, Backbone
from ..kinds import Fitted, Input, Pixels
from ..tables.layers import Layer
from . import given, minilm, minilm_torch, own_weights
from .blocks import WithBlocks, inner
from .families import FAMILIES
from .pooling import pooled

RANDOM_SEED = 0


@dataclass(frozen=True)
class TorchBackbone:
    """A frozen network in evaluation mode.

    `module` maps uint8 pictures [n, side, side, 3] to float32 features [n, dimension]. It first
    normalises with mean and std, so that this step is exported with the network. If `to_train`
    returned it, `module` may map token ids instead, as `minilm_torch.MiniLM` does. `fingerprint`
    changes with the weights, the architecture and the preprocessing. `blocks` are the inner blocks
    whose features `with_blocks` returns, if they were requested.
    """

    module: nn.Module
    preprocessing: Input
    dimension: int
    fingerprint: str
    blocks: tuple[Layer, ...] = ()

    def with_blocks(self, module: nn.Module | None = None) -> nn.Module:
        """Return a module that returns what `module` returns, and the features of each block.

        Args:
            module: a module that runs this backbone's `module`; the default is `module` itself.
        """
        network = self.module.get_submodule("network")
        names = [block.name for block in self.blocks]
        return WithBlocks(module or self.module, network, names).eval()


def load(backbone: Backbone) -> TorchBackbone:
    """Load the network that `backbone` names.

    Random weights are seeded.

    Raises:
        ParamsError: the model does not exist, has no PyTorch form, or does not support the pooling.
        WeightsError: the weights cannot be downloaded, their package is not installed, or they
            belong to a different network.
    """
    family = FAMILIES[backbone.family]
    if backbone.weights == "random":
        torch.manual_seed(RANDOM_SEED)
    network, preprocessing = family.network(backbone)
    if backbone.weights_file:
        own_weights.put_into(network, backbone, backbone.weights_file)
    network = pooled(backbone, network, preprocessing.crop)
    module = _Frozen(network, preprocessing).eval().requires_grad_(requires_grad=False)
    with torch.inference_mode(), plugins.blamed(f"backbone {backbone}"):
        side = preprocessing.crop
        features = module(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    fingerprint = _fingerprint(_known_as(backbone), module, preprocessing)
    blocks = inner(module, network, side) if backbone.blocks == "all" else ()
    return TorchBackbone(module, preprocessing, features.shape[1], fingerprint, blocks)


def to_train(backbone: Backbone) -> TorchBackbone:
    """Load a network to train, as `load` does; also MiniLM, which otherwise runs as ONNX."""
    if backbone.name not in TRAINED_TEXTS:
        return load(backbone)
    module = minilm_torch.MiniLM().eval().requires_grad_(requires_grad=False)
    preprocessing = minilm.preprocessing(backbone.name)
    fingerprint = _fingerprint(backbone.name, module, preprocessing)
    return TorchBackbone(module, preprocessing, minilm.WIDTH, fingerprint)


def with_weights(backbone: Backbone, file: Path) -> TorchBackbone:
    """Load the network with the weights in `file`, which `save_tensors` wrote.

    Raises:
        DataError: the weights are damaged, or belong to a different network.
    """
    weights = "pretrained" if backbone.family == "python" else "random"
    loaded = load(replace(backbone, weights=weights))
    try:
        loaded.module.load_state_dict(load_file(file))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise given.no_weights(file, backbone, error) from None
    fingerprint = _fingerprint(_known_as(backbone), loaded.module, loaded.preprocessing)
    return replace(loaded, fingerprint=fingerprint)


def _known_as(backbone: Backbone) -> str:
    return str(backbone) if backbone.pooling == "auto" else f"{backbone} {backbone.pooling}"


class _Frozen(nn.Module):
    """A network that maps 8-bit pixels to one feature vector per picture."""

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
        if features.ndim == 4:  # a feature map: average it over its area
            features = features.mean(dim=(2, 3))
        return features.flatten(1).float()


def _fingerprint(name: str, module: nn.Module, preprocessing: Input) -> str:
    """Return a digest of everything the features depend on, except the engine."""
    sha = hashlib.sha256(json.dumps([name, *preprocessing]).encode())
    sha.update(f"timm {version('timm')} torchvision {version('torchvision')}".encode())
    for key, tensor in module.state_dict().items():
        sha.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def save_tensors(
    tensors: Mapping[str, Tensor], file: Path, notes: dict[str, str] | None = None
) -> None:
    """Write tensors, such as a module's `state_dict()`, and metadata to a safetensors file."""
    # Each tensor is copied, because modules that occur in several places share tensors. The
    # library's own `save_file` does not raise OSError if the disk is full.
    plain = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    file.write_bytes(save(plain, metadata=notes))
