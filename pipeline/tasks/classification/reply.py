"""The server's reply in classification."""

from pydantic import Field

from ...serving.answering import Answer, Outputs, Row
from ...serving.replies import Explained


class Reply(Explained):
    """The prediction for an example."""

    best: str = Field(description="the class; without thresholds the most probable one")
    probability: float = Field(description="of that class, calibrated")
    probabilities: dict[str, float] = Field(description="of each class; they add up to 1")
    thresholds: dict[str, float] | None = Field(
        description="of each class, if training weighted the classes: `best` is the class whose"
        " probability is the largest multiple of its threshold; null: the most probable one"
    )
    likely: list[str] | None = Field(
        description="classes of the prediction set, the most probable one first; null: the"
        " bundle has no prediction sets"
    )


class ClassReply:
    """Implements `Replying` for classification."""

    form = Reply

    def reply(self, answer: Answer, outputs: Outputs) -> Row:
        """Return the class, and the probability of each class."""
        names, probabilities = outputs.names, answer.probabilities.tolist()
        return {
            "best": names[answer.best],
            "probability": probabilities[answer.best],
            "probabilities": dict(zip(names, probabilities, strict=True)),
            "thresholds": dict(zip(names, outputs.thresholds, strict=False)) or None,
            "likely": list(answer.likely) or None,
        }


PART = ClassReply()
