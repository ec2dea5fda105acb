"""Predictions of regression: the targets, in their own units."""

from typing import Any

import numpy as np

from ...serving.answering import Answer, Cells, Floats, Outputs, Row, rounded


class NumberAnswer:
    """Implements `Answering` for regression."""

    def answer(self, output: Floats, outputs: Outputs) -> Answer:
        """Return the predicted targets, and their prediction intervals if the bundle has any."""
        interval = None
        if outputs.sets is not None:
            reach = np.array(outputs.sets.reach)[:, None] * [-1, 1]
            interval = output.astype(np.float64)[:, None] + reach
        return Answer(np.empty(0, np.float32), 0, numbers=output, interval=interval)

    def columns(self, outputs: Outputs) -> list[str]:
        """Return the names of the columns, as in `reports/predictions.csv`."""
        of_each = ("predicted", *("low", "high") * (outputs.sets is not None))
        return [f"{what}({name})" for name in outputs.names for what in of_each]

    def row(self, answer: Answer, outputs: Outputs) -> list[Any]:
        """Return the values of `columns`."""
        numbers = [] if answer.numbers is None else rounded(answer.numbers)
        if answer.interval is None:
            return numbers
        of_each = zip(numbers, map(rounded, answer.interval), strict=True)
        return [value for number, ends in of_each for value in (number, *ends)]

    def cells(self, names: list[str]) -> Cells:
        """Return the function that formats the targets side by side."""

        def cells(row: Row | None) -> str:
            of_each = []
            for name in names:
                cell = name if row is None else "–"
                if row:
                    cell = f"{row[f'predicted({name})']:.6g}"
                of_each.append(f"{cell:>{max(11, len(name))}}")
            return "  ".join(of_each)

        return cells


PART = NumberAnswer()
