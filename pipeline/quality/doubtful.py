"""Label issues of a task: what its part `issues` answers."""

from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import ChecksParams
from ..tasks import part


class Issues(Protocol):
    """How a task finds labels, or regression targets, that are probably wrong."""

    def require_memory(self, manifest: pd.DataFrame) -> None:
        """See that the machine can look for them.

        Raises:
            DataError: it cannot.
        """

    def find(
        self, rows: pd.DataFrame, features: npt.NDArray[np.float32], settings: ChecksParams
    ) -> pd.DataFrame:
        """A row an issue, the most doubtful first: `path`, `split`, `label`, `suggested`, and more.

        Args:
            rows: as `originals` gives them, n of them.
            features: [n, d].
            settings: the limit from which a label is an issue, and the seed of the folds.
        """


def of_task(task: str) -> Issues:
    """The task's own search for label issues."""
    return cast(Issues, part(task, "issues"))
