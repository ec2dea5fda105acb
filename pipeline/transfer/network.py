"""A backbone, a power and a head as one PyTorch network that can be trained."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ..heads.head import Floats, Head

LINEAR_BELOW = 1e-3  # smaller features are scaled instead of raised to a power


class Network(nn.Module):
    """A backbone, the power that its features are raised to, and a head."""

    def __init__(self, backbone: nn.Module, head: Head, power: float) -> None:
        """Join the parts; `backbone` maps uint8 [n, side, side, 3], or tokens, to [n, d]."""
        super().__init__()
        self.backbone, self.power = backbone, power
        layers: list[nn.Module] = []
        if head.hidden_weight is not None and head.hidden_bias is not None:
            layers += [_linear(head.hidden_weight, head.hidden_bias), nn.ReLU()]
        self.head = nn.Sequential(*layers, _linear(head.weight, head.bias))

    def forward(self, seen: Tensor) -> Tensor:
        """Return logits [n, c] of inputs of the backbone."""
        features = self.backbone(seen)
        if torch.is_grad_enabled():
            raised = _raised(features, self.power)
        else:  # as everywhere else, so that a bundle predicts the same
            raised = features.sign() * features.abs() ** self.power
        logits: Tensor = self.head(raised)
        return logits

    def as_head(self) -> Head:
        """Return the head in the form in which heads on frozen features are saved."""
        layers = [layer for layer in self.head if isinstance(layer, nn.Linear)]
        last_first = [array for layer in reversed(layers) for array in (layer.weight, layer.bias)]
        return Head(*(array.detach().cpu().numpy() for array in last_first))


def _linear(weight: Floats, bias: Floats) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def _raised(features: Tensor, power: float) -> Tensor:
    """Raise features as `power.raised` does, but with a finite slope at 0, a frequent value."""
    if power == 1:
        return features
    size = features.abs()
    powers = size.clamp(min=LINEAR_BELOW) ** power
    return features.sign() * torch.where(
        size < LINEAR_BELOW, size * LINEAR_BELOW ** (power - 1), powers
    )


def blocks(backbone: nn.Module) -> list[list[nn.Module]]:
    """Return the backbone's modules that have weights, in blocks from input to features.

    Sequential containers are split into their children. Adjacent single layers, such as a
    convolution and its normalisation, are one block.
    """
    found: list[list[nn.Module]] = []
    alone = False
    while len(inner := _with_weights(backbone.children())) == 1:  # a wrapper
        backbone = inner[0]
    for module in _with_weights(_parts(backbone)):
        is_layer = not _with_weights(module.children())
        if is_layer and alone:
            found[-1].append(module)
        else:
            found.append([module])
        alone = is_layer
    return found


def _with_weights(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [module for module in modules if next(module.parameters(), None) is not None]


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _parts(child)
        else:
            yield child
