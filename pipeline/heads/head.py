"""The head: its weights, its predictions, and how it is saved.

A head is linear (`features @ weight.T + bias`) or has a hidden ReLU layer before the linear one.
Prediction needs only NumPy, so that code that only predicts does not import PyTorch.
"""

import functools
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..core.errors import DataError
from ..tables import large
from ..tasks import TASKS, UNNAMED
from .description import Calibration, HeadDescription
from .tf_idf import weighed

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Floats = npt.NDArray[np.float32]
AGAIN = "run the train stage again, or get the bundle again"
MANY_LOGITS = 2**20  # more are processed in chunks of rows


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which NumPy and SciPy do linear algebra on one thread.

    The last bits of a product depend on the number of threads that compute it, so they would differ
    between machines. One thread is also faster if a problem is small or other processes use the
    cores, because threads wait for each other at every product. The limit applies only to libraries
    that are loaded already. SciPy has libraries of its own, so import SciPy first.
    """
    limit: AbstractContextManager[Any] = _libraries(len(sys.modules)).limit(limits=1)
    return limit


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> "ThreadpoolController":
    """Return the libraries of linear algebra; `modules` is the number of imported modules.

    The search takes milliseconds, so its result is kept until more modules, which may bring further
    libraries, are imported.
    """
    from threadpoolctl import ThreadpoolController  # only heat maps need it to predict

    return ThreadpoolController().select(user_api="blas")


@dataclass(frozen=True)
class Head:
    """Weights in the shapes of `torch.nn.Linear`, for d features, w hidden units and c classes.

    `weight` is [c, d] and `bias` [c] for a linear head. With a hidden layer `hidden_weight` is
    [w, d], `hidden_bias` [w] and `weight` [c, w].

    If features are term counts, `tf_idf.weighed` weights them with `idf` [d] before the first
    layer.
    """

    weight: Floats
    bias: Floats
    hidden_weight: Floats | None = None
    hidden_bias: Floats | None = None
    idf: Floats | None = None

    @property
    def dimension(self) -> int:
        """The number of input features."""
        first = self.weight if self.hidden_weight is None else self.hidden_weight
        return int(first.shape[1])

    @property
    def width(self) -> int:
        """The number of units in the hidden layer, 0 for a linear head."""
        return 0 if self.hidden_weight is None else len(self.hidden_weight)

    def seen(self, features: Floats) -> Floats:
        """Return the input [n, d] of the first layer: the features, or counts with TF-IDF."""
        return features if self.idf is None else weighed(features, self.idf)

    def logits(self, features: Floats) -> Floats:
        """Return the logits [n, c] of features [n, d]."""
        features = self.seen(features)
        with one_thread():
            if self.hidden_weight is not None and self.hidden_bias is not None:
                features = np.maximum(features @ self.hidden_weight.T + self.hidden_bias, 0)
            return features @ self.weight.T + self.bias

    def answers(
        self, features: Floats, temperature: float, task: str = UNNAMED
    ) -> npt.NDArray[np.float64]:
        """Return the task's predictions [n, c] for features [n, d].

        Predictions are the probabilities of the classes, which add up to 1, the probability of
        each label, or the predicted targets, which ignore the temperature. The logits of many rows
        are computed in chunks, into a file if there are very many.
        """
        size = max(1, 16 * MANY_LOGITS // len(self.bias))
        if len(features) <= size:
            return activated(task, self.logits(features), temperature)
        found = large.empty(len(features), len(self.bias), np.float64)
        for start in range(0, len(features), size):
            some = slice(start, start + size)
            found[some] = activated(task, self.logits(features[some]), temperature)
        return found

    def shifted(self, added: npt.ArrayLike) -> "Head":
        """Return a head whose logits are larger by `added` [c]."""
        return replace(self, bias=(self.bias + np.asarray(added)).astype(np.float32))

    def scaled(self, factor: float) -> "Head":
        """Return a head whose logits are `factor` times as large."""
        return replace(self, weight=self.weight * factor, bias=self.bias * factor)


def probabilities(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the softmax over the last axis of the logits divided by `temperature`."""
    scaled = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float64) / temperature
    powers = np.exp(scaled)
    found: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return found


def sigmoid(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the sigmoid of each logit divided by `temperature`."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(-np.abs(scaled))
    found: npt.NDArray[np.float64] = np.where(scaled >= 0, 1.0, powers) / (1 + powers)
    return found


def against_thresholds(
    found: npt.NDArray[np.floating], thresholds: Sequence[float]
) -> npt.NDArray[np.floating]:
    """Return a score for each class, [..., c]; the predicted class has the highest score.

    Without thresholds the scores are the probabilities. A head that was trained with class weights
    has a threshold for each class, and predicts the class whose probability is the largest multiple
    of its threshold (of two classes, the one whose probability reaches its threshold). The scores
    add up to 1, as probabilities do.
    """
    if not len(thresholds):
        return found
    multiples = found / np.asarray(thresholds, np.float64)
    strengths: npt.NDArray[np.float64] = multiples / multiples.sum(axis=-1, keepdims=True)
    return strengths


# For each `Task.activation`, the function from logits [n, c] and a temperature to predictions.
ACTIVATIONS: dict[str, Callable[[Floats, float], npt.NDArray[np.float64]]] = {
    "softmax": probabilities,
    "sigmoid": sigmoid,
    "identity": lambda logits, temperature: logits.astype(np.float64),
}


def activated(task: str, logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Return a task's predictions [n, c] for logits."""
    return ACTIVATIONS[TASKS[task].activation](logits, temperature)


HALVINGS = 60  # of the range of temperatures


def fit_temperature(
    logits: Floats, labels: npt.NDArray[np.int64 | np.float64], halvings: int = HALVINGS
) -> float:
    """Fit the temperature that minimises the negative log-likelihood (Guo et al., ICML 2017).

    The temperature does not change the predicted class. The labels are smoothed by one part in
    n + 1, as in Platt (1999). Otherwise, if a few examples are all predicted correctly, the best
    temperature would be 0 and all probabilities 0 or 1.

    Args:
        logits: [n, c] of held-out examples.
        labels: [n], the position of each example's class; or [n, c] of labels that are 1, 0 or
            unknown (NaN), which share one temperature.
        halvings: how often the range of temperatures, 0.001 to 1000, is halved.

    Returns:
        the temperature, to six significant digits; 1 if there are no examples.
    """
    examples, classes = logits.shape
    if not examples:
        return 1.0
    if labels.ndim == 2:
        return _temperature_of_labels(logits, labels.astype(np.float64), halvings)
    if examples * classes > MANY_LOGITS:
        return _temperature_of_many(logits, labels.astype(np.int64))
    scores = logits.astype(np.float64)
    softened = np.full(scores.shape, 1 / (classes * (examples + 1)))
    softened[np.arange(examples), labels.astype(np.int64)] += examples / (examples + 1)
    smoothed = float((softened * scores).sum())
    return _temperature_at(
        smoothed,
        lambda temperature: float((probabilities(logits, temperature) * scores).sum()),
        halvings,
    )


def _temperature_of_labels(logits: Floats, labels: npt.NDArray[np.float64], halvings: int) -> float:
    """`fit_temperature` for labels [n, c], each smoothed according to its known examples."""
    known = ~np.isnan(labels)
    if not known.any():
        return 1.0
    counts = np.broadcast_to(known.sum(axis=0), labels.shape)[known]
    softened = (labels[known] * counts + 0.5) / (counts + 1)
    scores = logits[known].astype(np.float64)
    smoothed = float(softened @ scores)
    return _temperature_at(
        smoothed, lambda temperature: float(sigmoid(scores, temperature) @ scores), halvings
    )


def _temperature_at(smoothed: float, believed: Callable[[float], float], halvings: int) -> float:
    """Find the temperature at which the `believed` logit sum equals that of the smoothed labels."""
    # The loss is convex in the inverse of the temperature, so its slope changes sign once.
    low, high = math.log(1e-3), math.log(1e3)
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if believed(math.exp(-middle)) < smoothed else (low, middle)
    return float(f"{math.exp(-middle):.6g}")


def _temperature_of_many(logits: Floats, labels: npt.NDArray[np.int64]) -> float:
    """`fit_temperature` in chunks of rows, with fewer steps (Brent, 1973)."""
    from scipy.optimize import brentq  # not needed to predict with a bundle

    examples, classes = logits.shape
    size = max(1, MANY_LOGITS // classes)
    chunks = [logits[start : start + size] for start in range(0, examples, size)]
    of_label = float(logits[np.arange(examples), labels].sum(dtype=np.float64))
    smoothed: float = float(logits.sum(dtype=np.float64)) / (classes * (examples + 1))
    smoothed += of_label * examples / (examples + 1)

    def excess(logarithm: float) -> float:
        temperature = math.exp(-logarithm)
        believed = [float(np.vdot(probabilities(one, temperature), one)) for one in chunks]
        return sum(believed) - smoothed

    low, high = math.log(1e-3), math.log(1e3)
    root: float
    if excess(low) >= 0:
        root = low
    elif excess(high) < 0:
        root = high
    else:
        root = float(brentq(excess, low, high, xtol=1e-9))
    temperature = math.exp(-root)
    return float(f"{temperature:.6g}")


def save_head(head: Head, description: HeadDescription, weights: Path, about: Path) -> None:
    """Write the tensors to `weights` (safetensors) and `description` to `about` (JSON)."""
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(as_bytes(head))
    description.write(about)


def as_bytes(head: Head) -> bytes:
    """Return the head's tensors as the bytes of a safetensors file.

    Python should write the bytes: the library's own `save_file` does not raise OSError if the disk
    is full.
    """
    tensors = {name: tensor for name, tensor in vars(head).items() if tensor is not None}
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def load_head(
    weights: Path,
    about: Path,
    read: Callable[[Path], HeadDescription] = HeadDescription.read,
) -> tuple[Head, HeadDescription]:
    """Read and check the files that `save_head` wrote, which may come from an untrusted source.

    Args:
        weights: the file of the tensors.
        about: the file of the description; in a bundle, `bundle.json`.
        read: the function that reads `about`.

    Raises:
        DataError: a file is missing or damaged, or the files do not belong together.
    """
    try:
        head = Head(**load_file(weights))
        description = read(about)
        wrong = _misfit(head)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or weights} does not exist; run the train stage"
        ) from None
    except KeyError as error:
        raise DataError(
            f"{weights} and {about} do not describe a head: {error} is missing; {AGAIN}"
        ) from None
    except (SafetensorError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{weights} and {about} do not describe a head: {reason}; {AGAIN}"
        ) from None
    if wrong:
        raise DataError(f"{weights} and {about} do not describe a head: {wrong}; {AGAIN}")
    if len(head.bias) != len(description.classes):
        raise DataError(
            f"{weights} has {len(head.bias)} outputs but {about} names "
            f"{len(description.classes)}; {AGAIN}"
        )
    widths = sum(layer.width for layer in description.layers)
    if widths not in (0, head.dimension):
        raise DataError(
            f"{weights} takes {head.dimension} features, but the layers in {about} have {widths};"
            f" {AGAIN}"
        )
    return head, description


def with_priors(head: Head, calibration: Calibration) -> Head:
    """Correct a head that was trained with class weights for the class priors.

    `calibration.calibrated` fitted the `prior_shift` that is added.
    """
    return head.shifted(calibration.prior_shift) if calibration.prior_shift else head


def without_priors(head: Head, calibration: Calibration) -> Head:
    """Undo `with_priors`: return the head as it was trained."""
    return head.shifted(-np.asarray(calibration.prior_shift)) if calibration.prior_shift else head


def _misfit(head: Head) -> str:
    """Return why the tensors are not a head; empty if they are."""
    tensors = {name: tensor for name, tensor in vars(head).items() if tensor is not None}
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            return f"{name} contains values that are not finite float32 numbers"
    shapes = {name: tensor.shape for name, tensor in tensors.items() if name != "idf"}
    if len(shapes) in (2, 4) and all(len(s) == 2 - ("bias" in n) for n, s in shapes.items()):
        outer = head.weight.shape[0] == len(head.bias)
        inner = head.hidden_weight is None or (
            head.hidden_bias is not None
            and head.weight.shape[1] == len(head.hidden_weight) == len(head.hidden_bias)
        )
        if outer and inner and head.idf is not None and head.idf.shape != (head.dimension,):
            return (
                f"idf has the shape {head.idf.shape}, but the head takes {head.dimension} features"
            )
        if outer and inner:
            return ""
    return f"its tensors {shapes} do not fit together"
