"""A check of the machine's memory before a stage uses it."""

import os

from .errors import DataError


def require(needed: int, purpose: str, otherwise: str) -> None:
    """Check that this machine has enough memory for the next step of a stage.

    Args:
        needed: bytes of memory.
        purpose: what needs this memory, for the message.
        otherwise: what the user can do if the machine has less.

    Raises:
        DataError: the machine has less memory.
    """
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise DataError(
            f"{purpose} needs about {needed / 1e9:.1f} GB of memory, but this machine has "
            f"{there / 1e9:.1f} GB; {otherwise}"
        )
