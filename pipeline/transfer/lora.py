"""LoRA: small adapters learn beside frozen layers (Hu et al., ICLR 2022, arXiv:2106.09685).

Beside the product of a layer's weight W comes that of `SCALE` times two thin matrices, B and A. B
begins with zeros, so that the network begins as it came. After training, W takes up their product,
and the network has its own form again. As in the paper, the query and the value of each attention
have adapters.
"""

import math

import torch
from torch import Tensor, nn

from ..core.errors import ParamsError

ADAPTED = ("query", "value")
SCALE = 2.0  # the paper's alpha over rank: alpha is twice the rank, whatever that is


class Adapted(nn.Module):
    """A layer and its adapter: x to layer(x) + SCALE · B A x."""

    def __init__(self, layer: nn.Linear, rank: int, drawn: torch.Generator) -> None:
        """Draw A as `torch.nn.Linear` would; B is 0."""
        super().__init__()
        self.layer = layer
        down = nn.Linear(layer.in_features, rank, bias=False)
        up = nn.Linear(rank, layer.out_features, bias=False)
        bound = 1 / math.sqrt(layer.in_features)
        with torch.no_grad():
            down.weight.uniform_(-bound, bound, generator=drawn)
            up.weight.zero_()
        self.down, self.up = down, up

    def forward(self, x: Tensor) -> Tensor:
        """The output of the layer plus that of the adapter."""
        found: Tensor = self.layer(x) + SCALE * self.up(self.down(x))
        return found

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with the adapter in its weight."""
        self.layer.weight += SCALE * (self.up.weight @ self.down.weight)
        return self.layer


def insert(backbone: nn.Module, rank: int, seed: int) -> None:
    """Put an adapter beside the query and the value of each attention, in place.

    Raises:
        ParamsError: the backbone has no such layers.
    """
    drawn = torch.Generator().manual_seed(seed)
    places = [
        (part, name)
        for part in backbone.modules()
        for name, layer in part.named_children()
        if name in ADAPTED and isinstance(layer, nn.Linear)
    ]
    if not places:
        raise ParamsError(
            "finetune.method lora is of encoders of texts, and extract.backbone is none: set"
            " finetune.method to blocks"
        )
    for part, name in places:
        setattr(part, name, Adapted(part.get_submodule(name), rank, drawn))  # type: ignore[arg-type]


def adapters(backbone: nn.Module) -> list[nn.Module]:
    """The adapters that were put into a backbone: the parts that learn."""
    return [
        thin
        for part in backbone.modules()
        if isinstance(part, Adapted)
        for thin in (part.down, part.up)
    ]


def merge(backbone: nn.Module) -> None:
    """Have each layer take up its adapter, in place; nothing if there are none."""
    for part in list(backbone.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, Adapted):
                setattr(part, name, layer.merged())
