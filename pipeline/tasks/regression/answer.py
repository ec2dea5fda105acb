"""The numbers that are answered, in the targets' own units."""

from typing import Any

import numpy as np

from ...serving.answering import Answer, Cells, Floats, Outputs, Row, rounded


class NumberAnswer:
    """Answers what `Answering` asks."""

    def answer(self, said: Floats, outputs: Outputs) -> Answer:
        """The numbers, and their intervals if any are promised."""
        interval = None
        if outputs.sets is not None:
            reach = np.array(outputs.sets.reach)[:, None] * [-1, 1]
            interval = said.astype(np.float64)[:, None] + reach
        return Answer(np.empty(0, np.float32), 0, numbers=said, interval=interval)

    def columns(self, outputs: Outputs) -> list[str]:
        """Each number, under the names that `reports/predictions.csv` has."""
        of_each = ("predicted", *("low", "high") * (outputs.sets is not None))
        return [f"{what}({name})" for name in outputs.names for what in of_each]

    def row(self, answer: Answer, outputs: Outputs) -> list[Any]:
        """These."""
        numbers = [] if answer.numbers is None else rounded(answer.numbers)
        if answer.interval is None:
            return numbers
        of_each = zip(numbers, map(rounded, answer.interval), strict=True)
        return [value for number, ends in of_each for value in (number, *ends)]

    def cells(self, names: list[str]) -> Cells:
        """The numbers side by side."""

        def cells(row: Row | None) -> str:
            of_each = []
            for name in names:
                said = name if row is None else "–"
                if row:
                    said = f"{row[f'predicted({name})']:.6g}"
                of_each.append(f"{said:>{max(11, len(name))}}")
            return "  ".join(of_each)

        return cells


PART = NumberAnswer()
