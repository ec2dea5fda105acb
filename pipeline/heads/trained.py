"""The settings of training beside the hyperparameters, and its results."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .description import HeadDescription
from .head import Floats, Head
from .hyperparameters import Hyperparameters
from .losses import LOSSES
from .sets import of_groups


@dataclass(frozen=True)
class Schedule:
    """What is the same for all heads of a sweep; `class_weights` is [c], or [c, 2] (`losses`).

    `counts` says whether features are counts of terms, which each head weighs by TF-IDF. `loss` is
    one of `losses.LOSSES`. With the `row_weights` "example" the rows of an example, its views,
    weigh as much as one row together; else each row weighs 1, and an example of the validation
    split, which has no augmented views, a fraction of a training example.
    """

    epochs: int
    batch_size: int
    patience: int
    class_weights: Floats
    counts: bool = False
    loss: str = "softmax"
    row_weights: str = "none"

    def weigh(self, digests: npt.NDArray[np.str_]) -> Floats | None:
        """What each row weighs [n] in the loss, beside its class; None if all weigh alike."""
        return of_groups(digests).astype(np.float32) if self.row_weights == "example" else None


@dataclass(frozen=True)
class Figures:
    """Mean loss and accuracy after `epoch` epochs; NaN if there are no examples.

    Those of training are running means over the epoch, without label smoothing. In regression, R²
    takes the place of the accuracy, and the losses are in `losses.Units`.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Trained:
    """The result of one head: `head` and `kept` (its figures) are None if it was lost.

    `scale` is what its logits were multiplied by, as `closed_forms.fair_scale` found.
    """

    hyperparameters: Hyperparameters
    head: Head | None
    kept: Figures | None
    curve: list[Figures]
    status: str
    scale: float = 1.0


def order(trained: Trained) -> tuple[bool, float, float]:
    """Sorts heads from best to worst; equals stay in the order of the parameters.

    The lowest validation loss is best, and if equal, the highest validation accuracy. With few
    validation examples many heads get the same number of them right, and the next example may
    well distinguish them; the loss also shows by how much each was right or wrong.
    """
    if trained.kept is None:
        return True, math.inf, 0
    return False, trained.kept.val_loss, -trained.kept.val_accuracy


def figure_names(loss: str) -> tuple[str, str, str, str]:
    """The names of the figures in tables, for a head that lowers `loss`."""
    score = LOSSES[loss].score
    return "train_loss", f"train_{score}", "val_loss", f"val_{score}"


def rounded(figures: Figures, loss: str = "softmax") -> dict[str, float]:
    """The defined figures, to six significant digits: more only shows how CPUs round."""
    values = figures.train_loss, figures.train_accuracy, figures.val_loss, figures.val_accuracy
    named = zip(figure_names(loss), values, strict=True)
    return {name: float(f"{value:.6g}") for name, value in named if not math.isnan(value)}


def with_figures(
    about: HeadDescription, kept: Figures, val: int, loss: str = "softmax"
) -> HeadDescription:
    """A head's description with the figures of the epoch that was kept.

    Args:
        about: the description.
        kept: the figures.
        val: how many validation examples there are.
        loss: that the head lowers.
    """
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
