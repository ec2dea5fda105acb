"""The median grade."""

from dataclasses import replace

import numpy as np

from pipeline.serving.answering import Answer, Floats, Outputs
from pipeline.tasks.classification.answer import ClassAnswer


class OrdinalAnswer(ClassAnswer):
    """A class, but for which one is answered."""

    def answer(self, said: Floats, outputs: Outputs) -> Answer:
        best = int((np.cumsum(said) >= 0.5).argmax())
        return replace(super().answer(said, outputs), best=best, labels=(outputs.names[best],))


PART = OrdinalAnswer()
