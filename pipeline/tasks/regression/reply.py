"""The server's reply in regression."""

from pydantic import Field

from ...serving.answering import Answer, Outputs, Row, intervals, rounded
from ...serving.replies import Explained


class NumbersReply(Explained):
    """The predicted targets of an example."""

    numbers: dict[str, float] = Field(description="by name, in the units of the training data")
    intervals: dict[str, tuple[float, float]] | None = Field(
        description="the prediction interval of each number; null: the bundle has none"
    )


class NumberReply:
    """Implements `Replying` for regression."""

    form = NumbersReply

    def reply(self, answer: Answer, outputs: Outputs) -> Row:
        """Return the predicted targets by name, and their intervals."""
        numbers = [] if answer.numbers is None else rounded(answer.numbers)
        return {
            "numbers": dict(zip(outputs.names, numbers, strict=True)),
            "intervals": intervals(answer, outputs.names) or None,
        }


PART = NumberReply()
