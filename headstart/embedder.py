"""A pretrained backbone as a transformer for scikit-learn."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import engines
from pipeline.core import errors, params
from pipeline.serving import embedding

from . import examples as given
from .examples import Example

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ImportError:  # not in the base set; `transform` works without it

    class BaseEstimator:  # type: ignore[no-redef]
        """Replaces scikit-learn's class."""

    class TransformerMixin:  # type: ignore[no-redef]
        """Replaces scikit-learn's class."""


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Turns examples into feature vectors with a frozen, pretrained backbone.

    The parameters are those of the section `extract` of `params.yaml`, with the same meaning;
    `kind` is `ingest.kind`, the kind of the examples. The features are the same too: those of view
    0, as the backbone returns them. They are looked up in the feature store, or computed and saved
    there. With `blocks="all"`, the features of inner blocks are further columns; each block has its
    own scale.

        make_pipeline(headstart.Embedder("efficientnet_lite0"), LogisticRegression())
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        weights: str = "pretrained",
        pooling: Literal["auto", "class", "mean", "class_mean", "gem"] = "auto",
        blocks: Literal["last", "all"] = "last",
        engine: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["float32", "bfloat16"] = "float32",
        batch_size: int = 32,
        kind: str = "image",
    ) -> None:
        """Save the parameters; they are checked at first use."""
        self.backbone = backbone
        self.weights = weights
        self.pooling = pooling
        self.blocks = blocks
        self.engine = engine
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.kind = kind

    def fit(self, examples: Iterable[Example], y: Any = None) -> "Embedder":
        """Check the parameters; nothing is learned.

        Raises:
            ParamsError: a parameter is invalid, or there is no such backbone.
            MissingSetError: the backbone needs packages that are not installed.
        """
        self._opened()
        return self

    def transform(self, examples: Example | Iterable[Example]) -> NDArray[np.float32]:
        """Return the features of each example, float32 [examples, dimension].

        Raises:
            RefusedError: an example is refused; the message names the example and the reason.
            StoreError: the feature store cannot be read or written.
        """
        opened = self._opened()
        wanted = [(one.name, one.load) for one in given.listed(examples, opened.kind)]
        return embedding.embed(wanted, opened, self.batch_size).features

    def _opened(self) -> engines.Encoder:
        names = ("backbone", "weights", "pooling", "blocks", "engine", "device", "precision")
        asked = {name: getattr(self, name) for name in (*names, "batch_size")}
        try:
            return embedding.opened(params.extract_section(asked, "Embedder"), self.kind)
        except errors.ParamsError as error:  # with the arguments' names, not those of params.yaml
            words, kind, kinds = str(error).partition("ingest.kind ")
            argument = " or ".join(f'"{name}"' for name in kinds.split(" or "))
            words += f"kind={argument}" if kind else ""
            raise errors.ParamsError(words.replace("extract.", "Embedder: ", 1)) from None

    def __sklearn_is_fitted__(self) -> bool:
        """Return True: there is nothing to learn."""
        return True
