"""What a task is called, for what answers without pandas."""

CLASSIFICATION = "classification"  # the task that a manifest or a head does not name
MULTILABEL, REGRESSION = "multilabel", "regression"
TASKS = (CLASSIFICATION, MULTILABEL, REGRESSION)
SEPARATOR = "|"  # between the labels of an example
