"""Cards of the report for wrong predictions, each with its explanation."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..kinds import Shown
from .embed import Row, Thumbnails, embedded

SHOWN = 12
NEAR = 3  # nearest training examples on each card
HEAT = 160  # pixels of a heat map's side


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction for the example at `path`, and the texts of its card.

    `heat_of` is the class or label whose heat map the card shows; None for no map.
    """

    path: str
    card: Row
    heat_of: str | None = None


class Near(NamedTuple):
    """A training example similar to the query."""

    path: str
    label: str
    cosine: float


@dataclass(frozen=True)
class Reasons:
    """The explanation of a prediction; `heat` shows the evidence for the class `best`."""

    best: str
    heat: Shown | None
    neighbours: Sequence[Near]


def cards(
    mistakes: Sequence[Mistake],
    reasons: Sequence[Reasons],
    shown: Thumbnails,
    confirmed: Collection[str] = (),
) -> list[Row]:
    """Return the cards of the mistakes for the template, each with its explanation.

    `confirmed` has the paths of examples whose label a person confirmed.
    """
    found = []
    for one, why in zip(mistakes, reasons, strict=True):
        heat = why.heat if why.best == one.heat_of else None
        # The heat map of a text contains the whole text, so the text is not shown again.
        repeated = heat is not None and heat.media_type.startswith("text/")
        beside: Row = {
            "path": shown.name(one.path),
            "marks": shown.marks(one.path),
            "confirmed": one.path in confirmed,
            "shown": None if repeated else shown(one.path),
            "heat": embedded(heat, f"heat map of {one.heat_of}") if heat else None,
            "neighbours": [
                near._asdict() | {"shown": shown(near.path), "path": shown.name(near.path)}
                for near in why.neighbours
            ],
        }
        found.append(one.card | beside)
    return found
