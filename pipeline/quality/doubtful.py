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
        """Check that the machine has the memory to look for label issues.

        Raises:
            DataError: it has too little.
        """

    def find(
        self, rows: pd.DataFrame, features: npt.NDArray[np.float32], settings: ChecksParams
    ) -> pd.DataFrame:
        """One row per issue, the most doubtful first: `path`, `split`, `label`, `suggested` etc.

        Args:
            rows: as `originals` gives them, n of them.
            features: [n, d].
            settings: the limit from which a label is an issue, and the seed of the folds.
        """


def of_task(task: str) -> Issues:
    """The task's own search for label issues."""
    return cast(Issues, part(task, "issues"))
