"""The replies of the server: fields that all tasks share; `reply.py` of a task has further ones."""

import base64
from typing import Protocol, cast

from pydantic import BaseModel, Field

from ..tasks import part
from .answering import Answer, Outputs, Row


class Like(BaseModel):
    """A training example that is similar to the query."""

    path: str
    label: str
    cosine: float = Field(
        description="of the angle between their features; 1 means the same direction"
    )
    number: int = Field(description="for /training/{number}, its thumbnail")


class Explained(BaseModel):
    """The fields of every prediction: novelty detection, and the explanation."""

    distance: float | None = Field(description="to the training examples; null: not known")
    unusual: bool | None = Field(description="out of distribution; null: not known")
    neighbours: list[Like] = Field(description="the nearest training examples, nearest first")
    heat_map: str | None = Field(
        description="a picture as a data URL; it shows where the class or the most probable label"
        " is seen, or what raises the first target"
    )


class Replying(Protocol):
    """The replies of a task."""

    form: type[Explained]

    def reply(self, answer: Answer, outputs: Outputs) -> Row:
        """Return the fields of `form` that `Explained` does not have."""


def of_task(task: str) -> Replying:
    """Return the task's implementation of `Replying`."""
    return cast(Replying, part(task, "reply"))


def reply(task: str, answer: Answer, outputs: Outputs) -> Explained:
    """Convert a prediction to the reply that the server sends."""
    heat_map, of = None, of_task(task)
    if answer.heat is not None:
        data = base64.b64encode(answer.heat.data).decode()
        heat_map = f"data:{answer.heat.media_type};base64,{data}"
    return of.form(
        distance=answer.distance,
        unusual=answer.unusual,
        neighbours=[Like(**vars(one)) for one in answer.neighbours],
        heat_map=heat_map,
        **of.reply(answer, outputs),
    )
