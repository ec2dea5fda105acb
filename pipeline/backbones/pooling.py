"""`extract.pooling`: how a network's last tokens or maps become features.

Transformers end in a token for each patch and often a class token, convolutional networks in maps.
The network's own pooling (`auto`) may not be the best for a linear head. DINOv2's own evaluation
concatenates the class token and the mean of the patches (Oquab et al., arXiv:2304.07193, appendix
B.3), and image retrieval uses GeM (Radenović et al., arXiv:1711.02512).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..core.backbone import Backbone
from ..core.errors import ParamsError

POWER, LEAST = 3.0, 1e-6  # of GeM, as in its paper


class Pooled(nn.Module):
    """A network of timm or torchvision with a pooling that is not its own.

    If the features include the mean of patch tokens, the tokens pass through `patches` as maps
    [n, d, h, w], so that heat maps can be computed from them.
    """

    def __init__(self, network: nn.Module, pooling: str) -> None:
        """Wrap `network`; `pooling` is `class`, `mean`, `class_mean` or `gem`."""
        super().__init__()
        self.network, self.pooling = network, pooling
        self.patches = nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        """Return features [n, d] of normalised pictures [n, 3, side, side]."""
        if self.pooling == "gem":
            maps = _maps(self.network, pictures).clamp(min=LEAST)
            means: Tensor = maps.pow(POWER).mean(dim=(2, 3)).pow(1 / POWER)
            return means
        tokens, first = _tokens(self.network, pictures)
        parts = []
        if self.pooling != "mean":
            parts.append(tokens[:, 0])
        if self.pooling != "class":
            patches = tokens[:, first:]
            side = math.isqrt(patches.shape[1])
            maps = patches.transpose(1, 2).unflatten(2, (side, side))
            parts.append(self.patches(maps).mean(dim=(2, 3)))
        after = getattr(self.network, "fc_norm", None)  # in timm's networks that pool before it
        if isinstance(after, nn.Module):
            parts = [after(part) for part in parts]
        return torch.cat(parts, dim=1)


def pooled(backbone: Backbone, network: nn.Module, side: int) -> nn.Module:
    """Return the network with the requested pooling; try it on a black picture of `side` pixels.

    Raises:
        ParamsError: the network does not have the tokens or maps that the pooling needs.
    """
    pooling = backbone.pooling
    if pooling == "auto":
        return network
    with torch.inference_mode():
        found = last(network.eval(), torch.zeros(1, 3, side, side))
    lacking = ""
    if pooling == "gem":
        if found is None or found.ndim != 4:
            lacking = "feature maps"
    elif found is None or found.ndim != 3:
        lacking = "tokens"
    elif pooling != "mean" and not _has_class_token(network):
        lacking = "class token"
    elif pooling != "class" and math.isqrt(patches := _patches(network, found)) ** 2 != patches:
        lacking = f"square grid of patch tokens (it has {patches})"
    if lacking:
        raise ParamsError(
            f"extract.pooling {pooling}: {backbone} has no {lacking}; set extract.pooling to auto"
        )
    return Pooled(network, pooling)


def last(network: Any, pictures: Tensor) -> Tensor | None:
    """Return the last tokens [n, t, d] or maps [n, d, h, w]; None if the network has neither."""
    if hasattr(network, "forward_features"):  # timm's
        found = network.forward_features(pictures)
        if not isinstance(found, Tensor):
            return None
        if found.ndim == 4 and getattr(network, "output_fmt", "NCHW") == "NHWC":
            found = found.permute(0, 3, 1, 2)
        last: Tensor = found
        return last
    if hasattr(network, "class_token"):  # torchvision's transformers
        patches = network._process_input(pictures)
        token = network.class_token.expand(len(patches), -1, -1)
        tokens: Tensor = network.encoder(torch.cat([token, patches], dim=1))
        return tokens
    if isinstance(getattr(network, "features", None), nn.Module):  # most of torchvision's
        maps: Tensor = network.features(pictures)
        return maps if maps.ndim == 4 and maps.shape[2] == maps.shape[3] else None
    if hasattr(network, "layer4"):  # torchvision's ResNets
        maps = network.maxpool(network.relu(network.bn1(network.conv1(pictures))))
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            maps = layer(maps)
        return maps
    return None


def _maps(network: nn.Module, pictures: Tensor) -> Tensor:
    maps = last(network, pictures)
    assert maps is not None  # noqa: S101 (`pooled` has tried it)
    return maps


def _tokens(network: nn.Module, pictures: Tensor) -> tuple[Tensor, int]:
    """Return the tokens, and the number of tokens before the patches."""
    tokens = _maps(network, pictures)
    return tokens, int(getattr(network, "num_prefix_tokens", 1))


def _has_class_token(network: nn.Module) -> bool:
    names = ("cls_token", "class_token")
    return any(isinstance(getattr(network, name, None), Tensor) for name in names)


def _patches(network: nn.Module, tokens: Tensor) -> int:
    return tokens.shape[1] - int(getattr(network, "num_prefix_tokens", 1))
