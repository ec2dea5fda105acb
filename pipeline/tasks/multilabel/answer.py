"""Predictions of multi-label tasks: the labels, and the probability of each label."""

from typing import Any

from ...serving.answering import Answer, Cells, Floats, Outputs, Row
from ..record import SEPARATOR

WIDEST = 40  # width of the printed column in characters


class LabelAnswer:
    """Implements `Answering` for multi-label tasks."""

    def answer(self, output: Floats, outputs: Outputs) -> Answer:
        """Return the labels whose probability reaches their threshold."""
        of_each = zip(outputs.names, output, outputs.thresholds, strict=True)
        labels = tuple(name for name, probability, least in of_each if float(probability) >= least)
        return Answer(output, int(output.argmax()), labels=labels)

    def columns(self, outputs: Outputs) -> list[str]:
        """Return the names of the columns: predicted labels, and each label's probability."""
        return ["labels", *(f"p({name})" for name in outputs.names)]

    def row(self, answer: Answer, outputs: Outputs) -> list[Any]:
        """Return the values of `columns`."""
        return [list(answer.labels), *map(float, answer.probabilities)]

    def cells(self, names: list[str]) -> Cells:
        """Return the function that formats the predicted labels (else the most probable)."""
        width = min(WIDEST, len(SEPARATOR.join(f" {label} 0.00 " for label in names)) - 2)

        def one(row: Row, label: str) -> str:
            return f"{label} {row[f'p({label})']:.2f}"

        def cells(row: Row | None) -> str:
            if row is None:
                return f"{'labels':{width}}"
            if not row:
                return f"{'–':{width}}"
            found = f" {SEPARATOR} ".join(one(row, label) for label in row["labels"])
            nearest = max(names, key=lambda label: row[f"p({label})"])
            return f"{found or f'none ({one(row, nearest)})':{width}}"

        return cells


PART = LabelAnswer()
