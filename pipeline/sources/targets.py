"""What is learned of the examples that a source found: labels or numbers of its texts."""

import math
from collections.abc import Sequence

from ..core.errors import DataError
from ..core.params import IngestParams
from ..tables import targets
from ..tables.manifest import UNLABELLED
from ..tables.task_names import CLASSIFICATION, REGRESSION, SEPARATOR
from .found import Found, Listing, Refused


def targeted(listing: Listing, settings: IngestParams) -> Listing:
    """The listing with what is to be learned of each example, for the task of `settings`.

    An example whose label or target is no such thing is refused.

    Raises:
        DataError: there are examples of another domain, for a task that none are used in.
    """
    if settings.task == CLASSIFICATION:
        return listing
    if unlabelled := [row.path for row in listing.found if row.split == UNLABELLED]:
        raise DataError(
            f"{unlabelled[0]} is of split {UNLABELLED}, for ingest.task classification, and"
            f" ingest.task is {settings.task}: leave such examples out"
        )
    found: list[Found] = []
    refused = list(listing.refused)
    for row in listing.found:
        try:
            found.append(_with_targets(row, settings.task, settings.targets or ()))
        except ValueError as error:
            refused.append(Refused(row.path, str(error)))
    return Listing(found, sorted(refused), listing.columns)


def _with_targets(row: Found, task: str, columns: Sequence[str]) -> Found:
    """A row whose label is the text of what is learned, and whose targets are numbers.

    Raises:
        ValueError: why it has none.
    """
    if task == REGRESSION:
        texts = row.cells if columns else (row.label,)
        named = columns or ("",)
        values = tuple(targets.number(n, text) for n, text in zip(named, texts, strict=True))
        return row._replace(label=targets.shown(named, values, task), targets=values)
    if not columns:
        return row._replace(label=SEPARATOR.join(targets.labels_in(row.label)))
    cells = zip(columns, row.cells, strict=True)
    values = tuple(targets.presence(name, text) for name, text in cells)
    if all(map(math.isnan, values)):
        raise ValueError("none of its labels is known")
    return row._replace(label=targets.shown(columns, values, task), targets=values)
