"""Predictions of classification: the class, and the probability of each class."""

from typing import Any

from ...heads.head import against_thresholds
from ...heads.sets import size
from ...serving.answering import Answer, Cells, Floats, Outputs, Row


class ClassAnswer:
    """Implements `Answering` for classification."""

    def answer(self, output: Floats, outputs: Outputs) -> Answer:
        """Return the most probable class; if training weighted the classes, thresholds decide."""
        strengths = against_thresholds(output, outputs.thresholds)
        likely: tuple[str, ...] = ()
        best = int(strengths.argmax())
        if outputs.sets is not None and outputs.sets.labels is not None:
            count, order = size(strengths, outputs.sets.labels)
            likely = tuple(outputs.names[place] for place in order[:count])
        return Answer(output, best, labels=(outputs.names[best],), likely=likely)

    def columns(self, outputs: Outputs) -> list[str]:
        """Return the columns: class, probability and, with class weights, the most probable one."""
        weighed, has_sets = bool(outputs.thresholds), outputs.sets is not None
        return ["class", "probability", *["most_probable"] * weighed, *["likely"] * has_sets]

    def row(self, answer: Answer, outputs: Outputs) -> list[Any]:
        """Return the values of `columns`."""
        names, probabilities = outputs.names, answer.probabilities
        values: list[Any] = [names[answer.best], float(probabilities[answer.best])]
        values += [names[int(probabilities.argmax())]] * bool(outputs.thresholds)
        return values + [list(answer.likely)] * (outputs.sets is not None)

    def cells(self, names: list[str]) -> Cells:
        """Return the function that formats probability and class."""
        width = max(len("class"), *map(len, names))

        def cells(row: Row | None) -> str:
            if row is None:
                return f"{'probability':>11}  {'class':{width}}"
            if not row:
                return f"{'–':>11}  {'–':{width}}"
            return f"{row['probability']:11.4f}  {row['class']:{width}}"

        return cells


PART = ClassAnswer()
