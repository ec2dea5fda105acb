"""Grades are the manifest's labels, as classes are."""

from pipeline.tasks.classification.targets import PART

__all__ = ["PART"]
