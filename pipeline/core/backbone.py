"""Parsing of backbone names: `Backbone.parse`."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from . import paths, plugins

OWN = f"{paths.WEIGHTS.as_posix()}/"  # prefix of the user's own networks and weights
RANDOM = "random:"  # prefix of a network with random weights
HUB = "hf-hub:"  # prefix of a network on a hub that timm supports

# The families, and the names of their networks. The first three families have a PyTorch form, which
# can have random weights, another pooling, and be trained. `onnx` is the user's own graph. For the
# others but `python`, an ONNX graph is written when they are opened.
FAMILIES = {
    "lite": "efficientnet_lite[012]",
    "torchvision": r"torchvision:[\w.\-/]+",
    "timm": rf"timm:(?:{HUB})?[\w.\-/@]+",
    "onnx": rf"onnx:{OWN}[\w.\-/]+\.onnx",
    "identity": "identity",
    "minilm": "minilm_l6_v2|minilm_l6_v2_int8",
    "terms": "tf_idf|characters",
    "speech": "speech_embedding",
    "whisper": "whisper_tiny_en",
    "spectra": "mfcc|log_mel",
    "histogram": "histogram",
    "transformers": r"transformers:[\w.\-/]+",
    "python": plugins.PATTERN,
}
IN_PYTORCH = ("lite", "torchvision", "timm")
WITH_BLOCKS = (*IN_PYTORCH, "minilm", "speech", "whisper", "transformers", "python")  # inner blocks
READS = {"minilm": ("en",)}  # the languages of texts that a family was trained on, if it matters
TRAINED_TEXTS = ("minilm_l6_v2",)  # networks with a graph that `finetune` can still train
NAMES = (
    "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, torchvision:NAME, timm:NAME,"
    f" onnx:{OWN}NAME.onnx, identity, minilm_l6_v2, minilm_l6_v2_int8, tf_idf, characters,"
    " speech_embedding, whisper_tiny_en, mfcc, log_mel, histogram, transformers:NAME or"
    " python:MODULE.FUNCTION"
)


@dataclass(frozen=True)
class Backbone:
    """One network, or several that are joined, as named in `params.yaml`.

    `str` returns the name as it was written.
    """

    family: str  # a key of `FAMILIES`, or `joined`
    name: str  # its name within the family
    weights: str = "pretrained"  # as in `extract.weights`
    pooling: str = "auto"  # as in `extract.pooling`
    blocks: str = "last"  # as in `extract.blocks`
    parts: tuple["Backbone", ...] = ()  # the networks that are joined

    @classmethod
    def parse(cls, text: str, weights: str = "pretrained", pooling: str = "auto") -> "Backbone":
        """Parse a name such as `timm:resnet18` or `efficientnet_lite0+timm:resnet18`.

        Raises:
            ValueError: the name is invalid, or names a network twice; the message says which.
        """
        parts = tuple(_one(part, weights, pooling) for part in text.split("+"))
        if len(set(parts)) < len(parts):
            raise ValueError("names a network twice")
        if len(parts) == 1:
            return parts[0]
        return cls("joined", text, weights, pooling, parts=parts)

    @classmethod
    def candidate(cls, text: str) -> "Backbone":
        """Parse a name as `parse` does, and `random:NAME` as the network NAME with random weights.

        Raises:
            ValueError: as in `parse`, or the network has no PyTorch form.
        """
        backbone = cls.parse(text.removeprefix(RANDOM))
        if not text.startswith(RANDOM):
            return backbone
        if backbone.family not in IN_PYTORCH:
            known = "efficientnet_lite0, _lite1 or _lite2, torchvision:NAME or timm:NAME"
            raise ValueError(f"should have {known} behind {RANDOM}")
        return replace(backbone, weights="random")

    def __str__(self) -> str:
        is_prefixed = FAMILIES.get(self.family, "").startswith(f"{self.family}:")
        return f"{self.family}:{self.name}" if is_prefixed else self.name

    @property
    def each(self) -> tuple["Backbone", ...]:
        """The networks that are joined, or this one."""
        return self.parts or (self,)

    @property
    def is_joined(self) -> bool:
        """Whether several networks are joined."""
        return bool(self.parts)

    @property
    def has_graph(self) -> bool:
        """Whether the network has its own graph and no PyTorch form, according to its name."""
        return not self.is_joined and self.family not in (*IN_PYTORCH, "python")

    @property
    def has_blocks(self) -> bool:
        """Whether the network, or a joined one, has inner blocks, according to its name."""
        return any(one.family in WITH_BLOCKS for one in self.each)

    @property
    def reads(self) -> tuple[str, ...]:
        """Codes of the languages that it was trained on; empty if that is not known or any will do.

        A joined backbone reads what any of its networks reads.
        """
        each = [READS.get(one.family, ()) for one in self.each]
        return tuple(dict.fromkeys(code for codes in each for code in codes)) if all(each) else ()

    def with_blocks(self, blocks: str) -> "Backbone":
        """Return the backbone with `blocks` for each network that has inner blocks."""
        if self.is_joined:
            return replace(self, parts=tuple(one.with_blocks(blocks) for one in self.parts))
        return replace(self, blocks=blocks) if self.has_blocks else self

    @property
    def as_published(self) -> bool:
        """Whether the network has its own weights and pooling."""
        return self.weights == "pretrained" and self.pooling == "auto"

    @property
    def needs(self) -> str | None:
        """The extra that exporting a single network needs, according to its name.

        None means that a plain installation, or the set of the examples' kind, is enough, or that
        the network's module checks its packages itself (`transformers:NAME`).
        """
        if self.has_graph:
            return None
        if self.family == "lite" and self.as_published:
            return None if self.name == "efficientnet_lite0" else "weights"
        return "torch"

    @property
    def own_path(self) -> Path | None:
        """The network's file or folder in `data/weights`; None if it comes from elsewhere.

        A graph is a file. A folder has the layout of timm's hub.
        """
        is_own = self.family in ("onnx", "timm") and self.name.startswith(OWN)
        return Path(self.name) if is_own else None

    @property
    def weights_file(self) -> Path | None:
        """The file of the weights in `data/weights`; None for pretrained or random weights."""
        return Path(self.weights) if self.weights.startswith(OWN) else None


def inside(path: str) -> str:
    """Return the path, after checking that it stays inside `data/weights`.

    Raises:
        ValueError: the path leads out of the folder.
    """
    if ".." in path.split("/"):
        raise ValueError(f"should be the path of a file in {OWN}, without ..")
    return path


def _one(text: str, weights: str, pooling: str) -> Backbone:
    for family, pattern in FAMILIES.items():
        if re.fullmatch(pattern, text):
            return Backbone(family, inside(text).removeprefix(f"{family}:"), weights, pooling)
    raise ValueError(f"should be {NAMES}, or several of them joined by +")
