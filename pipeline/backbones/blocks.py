"""Inner blocks of a PyTorch network, and the features that are the means of their outputs.

Blocks are the members of the network's sequential containers, except single layers with weights.
The inner blocks of a convolutional network are the ends of its stages: the last block before the
maps change shape. In a transformer, `family.inner_layers` chooses them.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..tables.layers import Layer
from .family import MOST_BLOCKS, inner_layers
from .pooling import Pooled

CONTAINERS = (nn.Sequential, nn.ModuleList)


class WithBlocks(nn.Module):
    """A backbone that also returns the features of inner blocks."""

    def __init__(self, backbone: nn.Module, network: nn.Module, names: list[str]) -> None:
        """Wrap `backbone`, which runs `network`; `names` are names of blocks in `root(network)`."""
        super().__init__()
        self.backbone = backbone
        self._inner = [root(network).get_submodule(name) for name in names]  # not registered twice

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Return what the backbone returns, and then the features [n, width] of each block."""
        seen: dict[int, Tensor] = {}
        hooks = [
            block.register_forward_hook(
                lambda _part, _inputs, output, at=at: seen.update({at: mean(output)})
            )
            for at, block in enumerate(self._inner)
        ]
        found = self.backbone(pictures)
        for hook in hooks:
            hook.remove()
        of_blocks = (seen[at] for at in range(len(self._inner)))
        return *(found if isinstance(found, tuple) else (found,)), *of_blocks


def root(network: nn.Module) -> nn.Module:
    """Return the module of timm, torchvision or a plugin in which blocks have their names."""
    return network.network if isinstance(network, Pooled) else network


def mean(output: Tensor) -> Tensor:
    """Return the mean [n, width] of tokens [n, t, width], or of square maps over their area."""
    if output.ndim == 4:
        height, width, last = output.shape[1:]
        if not height == width != last:
            return output.float().mean(dim=(2, 3))
        output = output.flatten(1, 2)  # channels are last, as in Swin transformers
    # A product instead of a mean, which ONNX Runtime rounds differently if n is 1.
    tokens = output.shape[1]
    shares = torch.full((1, tokens), 1 / tokens, device=output.device)
    return (shares @ output.float()).squeeze(1)


def inner(module: nn.Module, network: nn.Module, side: int) -> tuple[Layer, ...]:
    """Return the inner blocks of a network, from input to output: at most five, perhaps none.

    The function runs the network on a random picture to see the shapes of its blocks' outputs, so
    it needs no interface of the network's library. Only blocks in sequential containers are found.
    A block whose mean is the network's features is left out.

    Args:
        module: maps uint8 pictures [n, side, side, 3] to features.
    """
    seen: list[tuple[str, tuple[int, ...], Tensor]] = []

    def look(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_part: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim in (3, 4) and output[0, 0].numel() > 1:
                seen.append((name, tuple(output.shape), mean(output)))

        return hook

    hooks = [part.register_forward_hook(look(name)) for name, part in _blocks(root(network))]
    drawn = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (1, side, side, 3), dtype=torch.uint8, generator=drawn)
    with torch.inference_mode():
        features = module(pictures)
    for hook in hooks:
        hook.remove()
    ends = []
    for shape, group in itertools.groupby(seen, key=lambda one: one[1]):
        members = list(group)
        if len(shape) == 3:
            ends += [members[layer - 1] for layer in inner_layers(len(members))]
        else:
            ends.append(members[-1])
    return tuple(
        Layer(name, found.shape[1])
        for name, _, found in ends
        if found.shape != features.shape or not torch.allclose(found, features, 1e-4, 1e-5)
    )[-MOST_BLOCKS:]


def _blocks(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the blocks of a network with their names, except blocks inside other blocks."""
    if hasattr(network, "class_token"):  # torchvision's transformers
        yield from _members(network.get_submodule("encoder.layers"), "encoder.layers.")
        return
    for name, child in network.named_children():
        if isinstance(child, CONTAINERS):
            yield from _members(child, f"{name}.")


def _members(container: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in container.named_children():
        if isinstance(child, CONTAINERS):
            yield from _members(child, f"{prefix}{name}.")
        # A convolution is left out, because its normalisation is folded into its weights.
        elif _has(child.children()) or not _has(child.parameters()):
            yield f"{prefix}{name}", child


def _has(some: Iterator[object]) -> bool:
    return next(some, None) is not None
