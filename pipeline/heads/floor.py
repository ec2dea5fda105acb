"""The heads on the floor and on the backbone: trained on the same examples by the same recipe.

The recipe has no hyperparameter to choose, so it favours neither: linear discriminants whose
shrinkage is estimated from the features, and for labels and numbers a ridge regression. Each
feature is scaled to variance 1, because the features of a floor have different units.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save

from ..core.errors import DataError
from ..tables.features import Split
from ..tasks import TASKS
from .head import Head
from .hyperparameters import Hyperparameters
from .scaling import PER_FEATURE

LDA = Hyperparameters("lda", scaling=PER_FEATURE)
RIDGE = Hyperparameters("ridge", weight_decay=0.3, scaling=PER_FEATURE)
NEVER = -1e30  # the logit of a class without an example to learn from


class Pair(NamedTuple):
    """A head on the floor and one on the backbone."""

    floor: Head
    backbone: Head

    def write(self, file: Path) -> None:
        """Write the tensors, such as `floor.weight`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{name}.{key}": np.ascontiguousarray(tensor)
            for name, head in self._asdict().items()
            for key, tensor in vars(head).items()
            if tensor is not None
        }
        file.write_bytes(save(tensors))

    @classmethod
    def read(cls, file: Path) -> "Pair":
        """Read what `write` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            tensors = load_file(file)
            heads = {
                name: Head(
                    **{
                        key.removeprefix(f"{name}."): tensor
                        for key, tensor in tensors.items()
                        if key.startswith(f"{name}.")
                    }
                )
                for name in cls._fields
            }
        except Exception as error:  # the library's own error is derived only from Exception
            reason = " ".join(str(error).split())
            raise DataError(f"{file} is damaged: {reason}; run the train stage again") from None
        return cls(**heads)


def fitted(
    floor: Split, splits: dict[str, Split], task: str, outputs: int, counts: bool
) -> Pair | None:
    """Train both heads; return None if there is nothing to tell apart, or a training diverged.

    Args:
        floor: the floor's features of the examples to learn from, sorted by digest.
        splits: the backbone's features of these examples and of others, with any views.
        counts: whether the backbone's features are counts of terms.
    """
    some = [
        split.take((split.views == 0) & np.isin(split.digests, floor.digests))
        for split in splits.values()
    ]
    rows = Split.concat(some)
    rows = rows.take(np.argsort(rows.digests))
    of_floor, of_backbone = _head(floor, task, outputs), _head(rows, task, outputs, counts)
    return Pair(of_floor, of_backbone) if of_floor and of_backbone else None


def _head(rows: Split, task: str, outputs: int, counts: bool = False) -> Head | None:
    from .fit import fit_heads  # slow to import, and only `train` needs it
    from .trained import Schedule

    present, recipe = np.arange(outputs), RIDGE
    if TASKS[task].exclusive:
        present, labels = np.unique(rows.labels, return_inverse=True)
        rows, recipe = replace(rows, labels=labels), LDA
    if len(rows.labels) < 2 or (TASKS[task].exclusive and len(present) < 2):
        return None
    weights, loss = np.ones(len(present), np.float32), TASKS[task].losses[0]
    schedule = Schedule(1, 1, 0, weights, counts, loss)
    (trained,) = fit_heads(rows, rows.take(slice(0)), [recipe], schedule, "cpu")
    if trained.head is None:
        return None
    weight = np.zeros((outputs, rows.features.shape[1]), np.float32)
    bias = np.full(outputs, NEVER, np.float32)
    weight[present], bias[present] = trained.head.weight, trained.head.bias
    return replace(trained.head, weight=weight, bias=bias)
