"""The training settings other than hyperparameters, and the results of training."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..tables.layers import Layers
from .description import HeadDescription
from .discriminants import Sums
from .head import Floats, Head
from .hyperparameters import Hyperparameters
from .losses import LOSSES
from .sets import of_groups


@dataclass(frozen=True)
class Schedule:
    """The settings that all heads of a sweep share; `class_weights` is [c], or [c, 2] (`losses`).

    `counts` is true if features are term counts, which each head weights by TF-IDF. `loss` is one
    of `losses.LOSSES`. If `row_weights` is "example", the weights of an example's rows, which are
    its views, add up to 1. Otherwise each row has the weight 1, so that a validation example, which
    has no augmented views, counts less than a training example. `layers` are the layers that the
    features come from; each has its own scale.
    """

    epochs: int
    batch_size: int
    patience: int
    class_weights: Floats
    counts: bool = False
    loss: str = "softmax"
    row_weights: str = "none"
    layers: Layers = ()

    def weigh(self, digests: npt.NDArray[np.str_]) -> Floats | None:
        """Return row weights [n] for the loss, besides the class weights; None if all are equal."""
        return of_groups(digests).astype(np.float32) if self.row_weights == "example" else None


@dataclass(frozen=True)
class Figures:
    """Mean loss and accuracy after `epoch` epochs; NaN if there are no examples.

    In gradient descent, the training metrics are running means over the epoch, without label
    smoothing. In regression, R² replaces the accuracy, and the losses are in `losses.Units`.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Trained:
    """The result of training a head; `head` and its metrics `kept` are None if training diverged.

    The logits were multiplied by `scale`, which `closed_forms.fair_scale` returned. `sums` are sums
    over the training and validation rows, if these suffice to train the head again.
    """

    hyperparameters: Hyperparameters
    head: Head | None
    kept: Figures | None
    curve: list[Figures]
    status: str
    scale: float = 1.0
    sums: Sums | None = field(default=None, repr=False, compare=False)


def order(trained: Trained) -> tuple[bool, float, float]:
    """Return a key to sort heads from best to worst; ties stay in the order of the parameters.

    The head with the lowest validation loss is best; ties are broken by the highest validation
    accuracy. The loss comes first because, with few validation examples, many heads have the same
    accuracy. The loss also shows by how much each prediction was right or wrong.
    """
    if trained.kept is None:
        return True, math.inf, 0
    return False, trained.kept.val_loss, -trained.kept.val_accuracy


def figure_names(loss: str) -> tuple[str, str, str, str]:
    """Return the names of the metrics in tables, for a head trained with `loss`."""
    score = LOSSES[loss].score
    return "train_loss", f"train_{score}", "val_loss", f"val_{score}"


def rounded(figures: Figures, loss: str = "softmax") -> dict[str, float]:
    """Return the metrics that are not NaN, to six digits: further ones depend on the CPU."""
    values = figures.train_loss, figures.train_accuracy, figures.val_loss, figures.val_accuracy
    named = zip(figure_names(loss), values, strict=True)
    return {name: float(f"{value:.6g}") for name, value in named if not math.isnan(value)}


def with_figures(
    about: HeadDescription, kept: Figures, val: int, loss: str = "softmax"
) -> HeadDescription:
    """Return a head's description with the metrics of the epoch that was kept."""
    figures, score = rounded(kept, loss), LOSSES[loss].score
    return replace(
        about,
        epoch=kept.epoch,
        training={"loss": figures["train_loss"], score: figures.get(f"train_{score}")},
        validation={
            "pictures": val,
            "loss": figures.get("val_loss"),
            score: figures.get(f"val_{score}"),
        },
    )
