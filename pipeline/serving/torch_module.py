"""A bundle as PyTorch modules with the same predictions, for example for further training.

    model = torch_module.load(Path("bundle"))
    probabilities = model(torch.from_numpy(pixels))  # uint8 [height, width, 3], of any size

`model.backbone` and `model.head` are ordinary modules with the bundle's weights.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..backbones import catalogue
from ..core.backbone import Backbone
from ..kinds import Input, Kind, named
from ..tasks import TASKS, UNNAMED
from .description import Bundle

# The functions from scores to predictions, by `Task.activation`.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda scores: scores.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "identity": lambda scores: scores,
}


class TorchClassifier(nn.Module):
    """A module that maps an example to the same prediction as the graph of `onnx_graph.whole`."""

    def __init__(
        self,
        kind: Kind,
        preprocessing: Input,
        backbone: nn.Module,
        head: nn.Module,
        power: float,
        temperature: float,
        task: str = UNNAMED,
    ) -> None:
        """Combine the parts."""
        super().__init__()
        self.activation = ACTIVATIONS[TASKS[task].activation]
        self.kind = kind
        self.preprocessing, self.power, self.temperature = preprocessing, power, temperature
        self.backbone, self.head = backbone, head

    def forward(self, example: Tensor) -> Tensor:
        """Return the prediction for an example, which for images is uint8 [height, width, 3].

        Returns:
            calibrated probabilities [classes], or predictions [targets] in regression.
        """
        pooled = self.backbone(self.kind.torch_input(example, self.preprocessing)[None])
        raised = pooled.sign() * pooled.abs() ** self.power
        scores: Tensor = self.head(raised)[0]
        return self.activation(scores / self.temperature)


def load(folder: Path) -> TorchClassifier:
    """Load the bundle in `folder`, in evaluation mode on the CPU."""
    bundle = Bundle.read(folder)
    about, origin = bundle.head, bundle.backbone
    network = Backbone.parse(origin.name, pooling=origin.pooling)
    found = catalogue.with_weights(network, folder / "backbone.safetensors")
    found = replace(found, blocks=about.layers[1:])
    backbone = nn.Sequential(found.with_blocks(), _Joined()) if found.blocks else found.module
    tensors = load_file(folder / "head.safetensors")
    layers = [_linear(tensors["weight"], tensors["bias"])]
    if "hidden_weight" in tensors:
        layers = [_linear(tensors["hidden_weight"], tensors["hidden_bias"]), nn.ReLU(), *layers]
    head = nn.Sequential(*layers)
    temperature = about.calibration.temperature
    return TorchClassifier(
        named(bundle.kind), bundle.inputs[0], backbone, head, about.power, temperature, about.task
    ).eval()


class _Joined(nn.Module):
    """Concatenates the features of the last layer and of inner blocks."""

    def forward(self, parts: tuple[Tensor, ...]) -> Tensor:
        return torch.cat(parts, dim=1)


def _linear(weight: Tensor, bias: Tensor) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(requires_grad=False)
