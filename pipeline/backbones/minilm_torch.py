"""MiniLM-L6 in PyTorch, to be trained: the network that `minilm.py` writes as ONNX.

The tensors have the names of `minilm.weights`, so that `minilm.graph` takes what was trained. Some
60 lines instead of the library `transformers`, which the set `text` does without.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import minilm

NAME = "minilm_l6_v2"
PADDING = -1  # stands behind a text that is shorter than others of its batch; no token's number
UNUSED = "pooler."  # what the names of weights begin with that no feature depends on


class Layer(nn.Module):
    """One layer of BERT, without dropout."""

    def __init__(self) -> None:
        super().__init__()
        width = minilm.WIDTH
        of_self = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(of_self), "output": _output(width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = _output(4 * width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """States [n, length, width] of states and of a mask [n, 1, 1, length] of what is a token."""
        of_self = self.attention["self"]
        query, key, value = (
            of_self[name](x).unflatten(2, (minilm.HEADS, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = _added(self.attention["output"], found.transpose(1, 2).flatten(2), x)
        return _added(self.output, functional.gelu(self.intermediate["dense"](x)), x)


class MiniLM(nn.Module):
    """From int64 tokens [n, length], `PADDING` behind the shorter ones, to features [n, 384]."""

    def __init__(self) -> None:
        super().__init__()
        width = minilm.WIDTH
        weights = minilm.weights(NAME)
        tables = {
            f"{name}_embeddings": nn.Embedding(
                len(weights[f"embeddings.{name}_embeddings.weight"]), width
            )
            for name in ("word", "position", "token_type")
        }
        self.embeddings = nn.ModuleDict(tables | {"LayerNorm": _norm()})
        # In sequence, so that `transfer.network.blocks` finds the layers in it.
        self.encoder = nn.Sequential()
        self.encoder.add_module("layer", nn.ModuleList(Layer() for _ in range(minilm.LAYERS)))
        self.load_state_dict(
            {
                name: torch.from_numpy(tensor)
                for name, tensor in weights.items()
                if not name.startswith(UNUSED)
            }
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean over a text's tokens, of length 1."""
        are = tokens != PADDING
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embeddings["word_embeddings"](tokens.clamp(min=0))
        x = x + self.embeddings["position_embeddings"](places)
        x = x + self.embeddings["token_type_embeddings"].weight[0]
        x = self.embeddings["LayerNorm"](x)
        for layer in self.encoder.get_submodule("layer").children():
            x = layer(x, are[:, None, None])
        total = (x * are[..., None]).sum(dim=1)  # of which only the direction counts
        return functional.normalize(total.float())


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(minilm.WIDTH, eps=minilm.EPSILON)


def _output(inputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, minilm.WIDTH), "LayerNorm": _norm()})


def _added(output: nn.ModuleDict, found: Tensor, x: Tensor) -> Tensor:
    """What a part of a layer found, added to what it was given."""
    states: Tensor = output["LayerNorm"](output["dense"](found) + x)
    return states
