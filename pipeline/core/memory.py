"""What a stage will need of the machine's memory, printed before it is used up."""

import os

from .errors import DataError


def require(needed: int, purpose: str, otherwise: str) -> None:
    """Check that this machine has the memory that a stage is about to need.

    Args:
        needed: bytes.
        purpose: what needs them.
        otherwise: what to do if there are fewer.

    Raises:
        DataError: there are fewer.
    """
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise DataError(
            f"{purpose} needs about {needed / 1e9:.1f} GB of memory, and this machine has "
            f"{there / 1e9:.1f} GB; {otherwise}"
        )
