"""MiniLM-L6 in PyTorch, for training: the network that `minilm.py` writes as ONNX.

The tensors have the names of `minilm.weights`, so that `minilm.graph` accepts the trained weights.
This module implements the network because the extra `text` does not install `transformers`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import minilm

NAME = "minilm_l6_v2"
PADDING = -1  # after a text that is shorter than the longest of its batch; not a token id
UNUSED = "pooler."  # prefix of the weights that the features do not depend on


class Attention(nn.Module):
    """Self-attention over the tokens of a text."""

    def __init__(self) -> None:
        """Create the layers; as in all modules here, the weights are loaded later."""
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(minilm.WIDTH, minilm.WIDTH) for _ in range(3))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Map states [n, length, width] to new ones of the same shape.

        The mask `seen` [n, 1, 1, length] is True for tokens and False for padding.
        """
        query, key, value = (
            part(x).unflatten(2, (minilm.HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return found.transpose(1, 2).flatten(2)


class Output(nn.Module):
    """A projection, the residual connection and the layer normalisation after it."""

    def __init__(self, inputs: int) -> None:
        """Create the layers, for `inputs` numbers per token."""
        super().__init__()
        self.dense = nn.Linear(inputs, minilm.WIDTH)
        self.LayerNorm = _norm()

    def forward(self, found: Tensor, given: Tensor) -> Tensor:
        """Return states [n, length, width]."""
        states: Tensor = self.LayerNorm(self.dense(found) + given)
        return states


class Layer(nn.Module):
    """One layer of BERT, without dropout."""

    def __init__(self) -> None:
        """Create the layers, with the width that all MiniLM networks here have."""
        super().__init__()
        width = minilm.WIDTH
        self.attention = nn.ModuleDict({"self": Attention(), "output": Output(width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = Output(4 * width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Map states and mask to new states, as `Attention.forward` does."""
        x = self.attention["output"](self.attention["self"](x, seen), x)
        states: Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x)
        return states


class MiniLM(nn.Module):
    """Maps int64 tokens [n, length], padded with `PADDING`, to features [n, 384]."""

    def __init__(self) -> None:
        """Create the network with the weights of its package.

        Raises:
            WeightsError: as `minilm.weights`.
        """
        super().__init__()
        weights = {
            name: torch.from_numpy(tensor)
            for name, tensor in minilm.weights(NAME).items()
            if not name.startswith(UNUSED)
        }
        tables = {
            name: nn.Embedding(len(weights[f"embeddings.{name}.weight"]), minilm.WIDTH)
            for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
        }
        self.embeddings = nn.ModuleDict(tables | {"LayerNorm": _norm()})
        # nn.Sequential, so that `transfer.network.blocks` finds the layers.
        self.encoder = nn.Sequential()
        self.encoder.add_module("layer", nn.ModuleList(Layer() for _ in range(minilm.LAYERS)))
        self.load_state_dict(weights)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mean over each text's tokens, scaled to length 1."""
        are = tokens != PADDING
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embeddings["word_embeddings"](tokens.clamp(min=0))
        x = x + self.embeddings["position_embeddings"](places)
        x = x + self.embeddings["token_type_embeddings"](torch.zeros_like(places))
        x = self.embeddings["LayerNorm"](x)
        for layer in self.encoder.get_submodule("layer").children():
            x = layer(x, are[:, None, None])
        total = (x * are[..., None]).sum(dim=1)  # only its direction matters
        return functional.normalize(total.float())


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(minilm.WIDTH, eps=minilm.EPSILON)
