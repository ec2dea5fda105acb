"""Export a backbone to ONNX, with the maps whose means are its features."""

import torch
from torch import Tensor, nn

from .catalogue import RANDOM_SEED, TorchBackbone
from .family import Opened
from .pooling import Pooled


class WithMaps(nn.Module):
    """A backbone that returns its features and the maps whose means are the features."""

    def __init__(self, backbone: nn.Module, source: nn.Module) -> None:
        """Read the maps from `source`, the module of `backbone` that `map_source` returned."""
        super().__init__()
        self.backbone, self.source = backbone, source

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 pictures [n, side, side, 3] to features [n, d] and maps [n, d, h, w]."""
        seen: list[Tensor] = []
        hook = self.source.register_forward_hook(lambda _part, _inputs, maps: seen.append(maps))
        features: Tensor = self.backbone(pictures)
        hook.remove()
        return features, seen[-1].float()


def map_source(backbone: TorchBackbone) -> nn.Module | None:
    """Return the module whose outputs [n, dimension, h, w] have the features as their means.

    With such a module, class activation maps are exact (Zhou et al., arXiv:1512.04150). The result
    is None for networks with layers after the pooling, and for networks that never pool
    (transformers). The function runs the network and compares outputs, so it works with any
    library's networks.
    """
    if any(
        isinstance(part, Pooled) and part.pooling == "gem" for part in backbone.module.modules()
    ):
        return None
    side = backbone.preprocessing.crop
    drawn = torch.Generator().manual_seed(RANDOM_SEED)
    pictures = torch.randint(256, (1, side, side, 3), dtype=torch.uint8, generator=drawn)
    outputs: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda part, _inputs, output: outputs.append((part, output)))
        for part in backbone.module.modules()
    ]
    with torch.inference_mode():
        features = backbone.module(pictures)
    for hook in hooks:
        hook.remove()
    for part, output in reversed(outputs):
        is_map = isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1
        if is_map and output.shape[1] == backbone.dimension:
            means = output.float().mean(dim=(2, 3))
            if torch.allclose(means, features, rtol=1e-4, atol=1e-5):
                return part
    return None


def export(backbone: TorchBackbone) -> Opened:
    """Export the backbone to ONNX: uint8 `pictures` [n, side, side, 3] to float32 `features`.

    If `map_source` finds maps, the second output is float32 `maps` [n, dimension, h, w]. The
    further outputs are the features of the backbone's inner blocks.
    """
    side = backbone.preprocessing.crop
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    source = map_source(backbone)
    module = WithMaps(backbone.module, source).eval() if source else backbone.module
    outputs = ["features", "maps"] if source else ["features"]
    exported = torch.onnx.export(
        backbone.with_blocks(module) if backbone.blocks else module,
        (example,),
        input_names=["pictures"],
        output_names=[*outputs, *(block.name for block in backbone.blocks)],
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert exported is not None  # noqa: S101 (it is not None with `dynamo`)
    model = exported.model_proto
    for node in model.graph.node:  # metadata has the code's path, which differs in a clone
        del node.metadata_props[:]
    tensors = {key: tensor.cpu().numpy() for key, tensor in backbone.module.state_dict().items()}
    return Opened(model, backbone.preprocessing, tensors)
