"""A pretrained backbone as a transformer for scikit-learn."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import engines
from pipeline.core import params
from pipeline.serving import embedding

from . import examples as given
from .examples import Example

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ImportError:  # the base set goes without; `transform` works all the same

    class BaseEstimator:  # type: ignore[no-redef]
        """Stands for scikit-learn's."""

    class TransformerMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's."""


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Turns examples into feature vectors with a frozen, pretrained backbone.

    The parameters are those of the section `extract` of `params.yaml`, and mean the same; `kind` is
    `ingest.kind`, what an example is. The features are the same too: view 0, as the backbone gives
    them, found in the feature store or put there.

        make_pipeline(headstart.Embedder("efficientnet_lite0"), LogisticRegression())
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        weights: str = "pretrained",
        pooling: Literal["auto", "class", "mean", "class_mean", "gem"] = "auto",
        engine: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["float32", "bfloat16"] = "float32",
        batch_size: int = 32,
        kind: str = "image",
    ) -> None:
        """Remember the parameters; they are checked when they are first used."""
        self.backbone = backbone
        self.weights = weights
        self.pooling = pooling
        self.engine = engine
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.kind = kind

    def fit(self, examples: Iterable[Example], y: Any = None) -> "Embedder":
        """Check the parameters; nothing is learned.

        Raises:
            ParamsError: a parameter is impossible, or there is no such backbone.
            MissingSetError: the backbone needs packages that are not installed.
        """
        self._opened()
        return self

    def transform(self, examples: Example | Iterable[Example]) -> NDArray[np.float32]:
        """The features of each example, float32 [examples, dimension].

        Raises:
            RefusedError: an example is not taken; the text names it and the reason.
            StoreError: the feature store cannot be read or written.
        """
        opened = self._opened()
        wanted = [(one.name, one.load) for one in given.listed(examples, opened.kind)]
        return embedding.embed(wanted, opened, self.batch_size).features

    def _opened(self) -> engines.Encoder:
        names = ("backbone", "weights", "pooling", "engine", "device", "precision", "batch_size")
        asked = {name: getattr(self, name) for name in names}
        return embedding.opened(params.extract_section(asked, "Embedder"), self.kind)

    def __sklearn_is_fitted__(self) -> bool:
        """Always: there is nothing to learn."""
        return True
