"""Text encoders from the Hugging Face Hub, exported to ONNX by PyTorch.

`transformers:NAME` is any encoder that `AutoModel` of `transformers` opens. Weights are read from
safetensors only, and no code from the hub is run. A text's features are the mean over its tokens,
scaled to length 1, as in `minilm.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import packages
from ..core.backbone import Backbone
from ..core.errors import WeightsError
from ..kinds import Tokens
from .family import UNKNOWN, Family, Opened, inner_layers

if TYPE_CHECKING:
    import onnx

MADE_BY = ("onnx", "onnx-ir", "onnxscript", "tokenizers", "torch", "transformers")
LONGEST = 512  # tokens, even if an encoder accepts more: the time grows with their square


def opened(backbone: Backbone) -> Opened:
    """Return the encoder's graph, from int64 `tokens` [n, length] to float32 `features` [n, width].

    Raises:
        MissingSetError: the packages for encoders are not installed.
        WeightsError: the hub cannot be reached, or has no encoder of this name with a tokenizer
            and safetensors.
    """
    packages.need("transformers", f"the backbone {backbone}")
    asked = backbone.name
    if Path(asked).exists():
        raise WeightsError(
            f"the backbone {backbone} is the path of an existing file or folder; it should be the"
            " name of a model on the Hugging Face Hub"
        )
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(asked, trust_remote_code=False)
        network = AutoModel.from_pretrained(asked, use_safetensors=True, trust_remote_code=False)
        described: str = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # the library raises many classes if a download fails
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"the weights of {backbone} cannot be loaded: {reason}") from None
    longest = min(tokenizer.model_max_length, most_tokens(network.config))
    model = graph(network, with_blocks=backbone.blocks == "all")
    return Opened(model, Tokens(described, longest), {})


def most_tokens(config: Any) -> int:
    """Return how many tokens an encoder accepts; RoBERTa's positions begin after its padding id."""
    positions = getattr(config, "max_position_embeddings", LONGEST)
    if "roberta" in config.model_type:
        positions -= config.pad_token_id + 1
    return int(min(positions, LONGEST))


def graph(network: Any, with_blocks: bool = False) -> "onnx.ModelProto":
    """Export an encoder of `transformers` to ONNX, with mean pooling over its tokens.

    With blocks, the layers of `family.inner_layers` are pooled too, in the same way.
    """
    import torch
    from torch import Tensor, nn

    layers = inner_layers(network.config.num_hidden_layers) if with_blocks else range(0)

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
            every = torch.ones_like(tokens)
            found = self.network(
                input_ids=tokens, attention_mask=every, output_hidden_states=bool(layers)
            )
            states = [found.last_hidden_state, *(found.hidden_states[layer] for layer in layers)]
            # A sum as a product, since ONNX Runtime rounds a mean differently if n is 1. Only its
            # direction matters.
            sums = [(every[:1].float() @ one.float()).squeeze(1) for one in states]
            return tuple(nn.functional.normalize(one) for one in sums)

    some = {0: torch.export.Dim("n", min=1), 1: torch.export.Dim("length", min=2, max=LONGEST)}
    exported = torch.onnx.export(
        Pooled().eval(),
        (torch.ones(2, 7, dtype=torch.int64),),
        input_names=["tokens"],
        output_names=["features", *(f"layer_{layer}" for layer in layers)],
        dynamic_shapes=(some,),
        dynamo=True,
        verbose=False,
    )
    assert exported is not None  # noqa: S101 (it is not None with `dynamo`)
    model = exported.model_proto  # each access makes another one
    for node in model.graph.node:  # as in `onnx_export.export`
        del node.metadata_props[:]
    return model


# The weights' page on the hub states a licence, but Headstart does not look it up.
FAMILY = Family(opened, licence=lambda _: UNKNOWN, made_by=lambda _: MADE_BY)
