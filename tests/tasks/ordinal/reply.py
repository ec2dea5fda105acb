"""A reply has the grade's rank besides."""

from pipeline.serving.answering import Answer, Outputs, Row
from pipeline.tasks.classification.reply import ClassReply, Reply


class Graded(Reply):
    """The answer about an example."""

    rank: int


class OrdinalReply(ClassReply):
    """A class, and its rank."""

    form = Graded

    def reply(self, answer: Answer, outputs: Outputs) -> Row:
        return super().reply(answer, outputs) | {"rank": answer.best + 1}


PART = OrdinalReply()
