"""The labels that are answered, and the probability of each."""

from typing import Any

from ...serving.answering import Answer, Cells, Floats, Outputs, Row
from ..record import SEPARATOR

WIDEST = 40  # characters of the printed column


class LabelAnswer:
    """Answers what `Answering` asks."""

    def answer(self, output: Floats, outputs: Outputs) -> Answer:
        """The labels whose probability reaches their threshold."""
        of_each = zip(outputs.names, output, outputs.thresholds, strict=True)
        labels = tuple(name for name, probability, least in of_each if float(probability) >= least)
        return Answer(output, int(output.argmax()), labels=labels)

    def columns(self, outputs: Outputs) -> list[str]:
        """The predicted labels, and a column for the probability of each label."""
        return ["labels", *(f"p({name})" for name in outputs.names)]

    def row(self, answer: Answer, outputs: Outputs) -> list[Any]:
        """The values of `columns`."""
        return [list(answer.labels), *map(float, answer.probabilities)]

    def cells(self, names: list[str]) -> Cells:
        """The labels that reach their threshold; if none does, the most probable in brackets."""
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
