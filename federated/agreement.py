"""What sites have to agree on before they train a head together, and which of them do."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import DataError

from .examples import ALIKE

PROTOCOL = 1  # of the messages between server and site; another one is refused


@dataclass(frozen=True)
class Offer:
    """What a site says of itself: the only names and counts that leave it.

    `at_most` is its number of training rows, rounded up to a power of two.
    """

    name: str
    classes: tuple[str, ...]
    at_most: int
    made_by: Mapping[str, str]
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Agreement:
    """The classes of all sites, sorted, and what made their features."""

    classes: tuple[str, ...]
    made_by: Mapping[str, str]
    at_most: int


def agreed(offers: list[Offer]) -> Agreement:
    """What most of the sites have in common; the classes are those of these sites.

    Raises:
        DataError: as many sites have one thing as have another, or there is none.
    """
    if not offers:
        raise DataError("no site is there to agree with")
    kinds = Counter(_kind(offer) for offer in offers)
    (first, most), *others = kinds.most_common()
    if others and others[0][1] == most:
        one = next(offer for offer in offers if _kind(offer) == first)
        other = next(offer for offer in offers if _kind(offer) == others[0][0])
        raise DataError(
            f"{other.name} has {_difference(one.made_by, other)} at {one.name}, and as many sites"
            " have either: set extract and train.power alike at all sites"
        )
    among = [offer for offer in offers if _kind(offer) == first]
    classes = sorted({name for offer in among for name in offer.classes})
    return Agreement(tuple(classes), among[0].made_by, max(offer.at_most for offer in among))


def why_refused(offer: Offer, agreement: Agreement, taken: set[str]) -> str:
    """Why a site cannot take part, in a few words; empty where it can.

    Args:
        offer: what it says.
        agreement: what the others have.
        taken: the names of those.
    """
    if offer.protocol != PROTOCOL:
        return f"its federated/ speaks protocol {offer.protocol}, the server's {PROTOCOL}"
    if offer.name in taken:
        return "another site has this name"
    if different := _difference(agreement.made_by, offer):
        return f"it has {different}"
    if strange := sorted(set(offer.classes) - set(agreement.classes)):
        return f"it came with classes that were not agreed on: {', '.join(strange[:10])}"
    if offer.at_most > agreement.at_most:
        return f"it has over {agreement.at_most} training rows, more than the largest at the start"
    return ""


def why_not_averaged(
    arrays: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]
) -> str:
    """Why a site's numbers cannot be averaged with others', in a few words; empty where they can.

    Args:
        arrays: what it sent.
        shapes: what was expected.
    """
    if {name: array.shape for name, array in arrays.items()} != dict(shapes):
        return "it sent numbers of another shape"
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return "it sent numbers that are not finite"
    return ""


def _kind(offer: Offer) -> tuple[str, ...]:
    return (str(offer.protocol), *(offer.made_by.get(name, "") for name in ALIKE))


def _difference(made_by: Mapping[str, str], offer: Offer) -> str:
    """The first thing that differs, with both values."""
    for name in ALIKE:
        mine, its = made_by.get(name, ""), offer.made_by.get(name, "")
        if mine != its:
            return f"{name} {its[:24] or 'unknown'} instead of {mine[:24]}"
    return ""


def rounded_up(rows: int) -> int:
    """The next power of two."""
    return 1 << max(0, rows - 1).bit_length()
