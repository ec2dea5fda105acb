"""What is learned of the examples that a source found: labels or numbers of its texts."""

from ..core.errors import DataError
from ..core.params import IngestParams
from ..tables import targets
from ..tables.manifest import UNLABELLED
from ..tasks import TASKS
from .found import Found, Listing, Refused


def targeted(listing: Listing, settings: IngestParams) -> Listing:
    """The listing with what is to be learned of each example, for the task of `settings`.

    An example whose label or target is no such thing is refused.

    Raises:
        DataError: there are examples of another domain, for a task that none are used in.
    """
    unlabelled = [row.path for row in listing.found if row.split == UNLABELLED]
    if unlabelled and "adapt.run" in TASKS[settings.task].lacks:
        raise DataError(
            f"{unlabelled[0]} is of split {UNLABELLED}, which the stage adapt is for, and that"
            f" knows no ingest.task {settings.task}: leave such examples out"
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
