"""The targets of a source's examples: labels, or numbers parsed from texts."""

from ..core.errors import DataError
from ..core.params import IngestParams
from ..tables import targets
from ..tables.manifest import UNLABELLED
from ..tasks import TASKS
from .found import Found, Listing, Refused


def targeted(listing: Listing, settings: IngestParams) -> Listing:
    """Return the listing with each example's target, for the task of `settings`.

    An example with an invalid label or target is refused.

    Raises:
        DataError: there are examples of another domain, and the task does not use them.
    """
    unlabelled = [row.path for row in listing.found if row.split == UNLABELLED]
    if unlabelled and "adapt.run" in TASKS[settings.task].lacks:
        raise DataError(
            f"{unlabelled[0]} has the split {UNLABELLED}, which only the stage adapt uses, but"
            f" adapt does not support ingest.task {settings.task}: leave such examples out"
        )
    read, columns = targets.of_task(settings.task).read, settings.targets or ()
    found: list[Found] = []
    refused = list(listing.refused)
    for row in listing.found:
        try:
            label, values = read(row.label, columns, row.cells)
            found.append(row._replace(label=label, targets=values))
        except ValueError as error:
            refused.append(Refused(row.path, str(error)))
    return Listing(found, sorted(refused), listing.columns)
