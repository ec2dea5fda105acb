"""The server's reply in multi-label tasks."""

from pydantic import Field

from ...serving.answering import Answer, Outputs, Row
from ...serving.replies import Explained


class LabelsReply(Explained):
    """The prediction for an example that may have several labels, or none."""

    labels: list[str] = Field(description="those whose probability reaches their threshold")
    probabilities: dict[str, float] = Field(description="of each label, calibrated")
    thresholds: dict[str, float] = Field(description="of each label, from out-of-fold predictions")


class LabelReply:
    """Implements `Replying` for multi-label tasks."""

    form = LabelsReply

    def reply(self, answer: Answer, outputs: Outputs) -> Row:
        """Return the predicted labels, and the probability and threshold of each label."""
        names = outputs.names
        return {
            "labels": list(answer.labels),
            "probabilities": dict(zip(names, answer.probabilities.tolist(), strict=True)),
            "thresholds": dict(zip(names, outputs.thresholds, strict=True)),
        }


PART = LabelReply()
