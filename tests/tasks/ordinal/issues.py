"""A grade is doubted as a class is."""

from pipeline.tasks.classification.issues import PART

__all__ = ["PART"]
