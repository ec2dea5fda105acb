"""LoRA: small adapters are trained beside frozen layers (Hu et al., ICLR 2022, arXiv:2106.09685).

An adapter adds `SCALE` times the product of two thin matrices, B and A, to a layer's weight W. B
starts with zeros, so the network starts unchanged. After training, the product is merged into W, so
that the network has its original structure again. As in the paper, the query and the value of each
attention layer have adapters.
"""

import math

import torch
from torch import Tensor, nn

from ..core.errors import ParamsError

ADAPTED = ("query", "value")
SCALE = 2.0  # the paper's alpha over rank: alpha is twice the rank


class Adapted(nn.Module):
    """A layer with its adapter, which maps x to layer(x) + SCALE · B A x."""

    def __init__(self, layer: nn.Linear, rank: int, drawn: torch.Generator) -> None:
        """Initialise A as `torch.nn.Linear` does, and B with zeros."""
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
        """Return the sum of the layer's output and the adapter's output."""
        found: Tensor = self.layer(x) + SCALE * self.up(self.down(x))
        return found

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the layer with the adapter merged into its weight."""
        self.layer.weight += SCALE * (self.up.weight @ self.down.weight)
        return self.layer


def insert(backbone: nn.Module, rank: int, seed: int) -> None:
    """Add an adapter to the query and the value of each attention layer, in place.

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
            "finetune.method lora is for text encoders, and extract.backbone is not one: set"
            " finetune.method to blocks"
        )
    for part, name in places:
        setattr(part, name, Adapted(part.get_submodule(name), rank, drawn))  # type: ignore[arg-type]


def adapters(backbone: nn.Module) -> list[nn.Module]:
    """Return the trainable parts of the adapters in a backbone."""
    return [
        thin
        for part in backbone.modules()
        if isinstance(part, Adapted)
        for thin in (part.down, part.up)
    ]


def merge(backbone: nn.Module) -> None:
    """Merge each adapter into its layer, in place; do nothing if there are none."""
    for part in list(backbone.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, Adapted):
                setattr(part, name, layer.merged())
