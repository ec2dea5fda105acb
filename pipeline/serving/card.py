"""A bundle's README.md: a model card in the format of the Hugging Face Hub."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ..kinds import named
from ..tasks import TASKS
from .description import Bundle

FILE = "README.md"
# The Hub's names of a kind's pipeline; a bundle of another kind or task names none.
PIPELINES = {
    "image": "image-classification",
    "text": "text-classification",
    "audio": "audio-classification",
    "vector": "tabular-classification",
}
MOST_OUTPUTS = 100  # classes that the card names


def card(bundle: Bundle) -> str:
    """Return the card: YAML front matter, then Markdown. Nothing in it varies between runs.

    The card sets no `license`, because only the owner of the examples can choose one.
    """
    parts = [_front_matter(bundle), *_model(bundle), *_metrics(bundle.metrics), *_limits(bundle)]
    return "\n\n".join(parts) + "\n"


def _front_matter(bundle: Bundle) -> str:
    content: dict[str, Any] = {
        "library_name": "headstart",
        "tags": ["headstart", "transfer-learning", "linear-probe", "onnx"],
    }
    if bundle.head.task == "classification" and bundle.kind in PIPELINES:
        content["pipeline_tag"] = PIPELINES[bundle.kind]
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"


def _model(bundle: Bundle) -> Iterator[str]:
    kind, task, outputs = named(bundle.kind), TASKS[bundle.head.task], bundle.head.classes
    counts = bundle.data.pictures
    yield f"# A model for {kind.nouns}"
    names = ", ".join(_escaped(name) for name in outputs[:MOST_OUTPUTS])
    more = f", and {len(outputs) - MOST_OUTPUTS} more" if len(outputs) > MOST_OUTPUTS else ""
    yield f"It predicts {task.counted(len(outputs))}: {names}{more}."
    trained = (
        f" on {counts['train']} training {kind.nouns}, with {counts.get('val', 0)} for validation"
        if counts.get("train")
        else f" on {kind.nouns} (this bundle does not say how many)"
    )
    # The stage `best` names the weights of a finetuned network so.
    further = "" if bundle.backbone.weights == "finetuned" else "not "
    yield (
        f"The features are those of {bundle.backbone.name} ({bundle.backbone.weights}), which was"
        f" {further}trained further. The licence of these weights is {bundle.backbone.licence}. The"
        f" head was trained{trained}. The owner of the examples chooses the licence of the whole"
        " model: add it to the first lines of this file as `license`."
    )
    yield (
        '```python\nimport headstart\n\nmodel = headstart.load("bundle")\n```\n\n'
        "`model.onnx` is the whole model, and runs without Headstart too."
    )


def _metrics(metrics: Mapping[str, object]) -> Iterator[str]:
    values, intervals = metrics.get("test"), metrics.get("interval")
    if not isinstance(values, dict) or not isinstance(intervals, dict):
        return
    rows = ["| metric | value | interval |", "| --- | --- | --- |"]
    for name, value in values.items():
        if ends := intervals.get(name):
            rows.append(f"| {name} | {value:g} | {ends['low']:g} to {ends['high']:g} |")
    tested = values.get("pictures", "the")
    yield f"## Metrics\n\nOn {tested} test examples, none of which training used:"
    yield "\n".join(rows)


def _limits(bundle: Bundle) -> Iterator[str]:
    kind = named(bundle.kind)
    known = (
        "It reports inputs that are unlike the training examples as out of distribution."
        if bundle.novelty is not None and bundle.novelty.threshold is not None
        else "It cannot detect inputs that are unlike the training examples."
    )
    yield (
        f"## Limits\n\nThe metrics hold for {kind.nouns} like those in the test split, and for no"
        f" others. The model gives an answer for every input. {known}"
    )
    given = {
        "features_and_paths": "features, labels and paths",
        "features": "features and labels",
    }.get(bundle.training_examples)
    if given:
        which = "the" if bundle.neighbours is None else f"{bundle.neighbours:,}"
        yield (
            "**Before you publish it**: `neighbours.safetensors` and `neighbours.json` have"
            f" {given} of {which} training {kind.nouns}. `bundle.training_examples: none` leaves"
            " them out."
        )


def _escaped(name: str) -> str:
    """Return a class's name as Markdown shows it, on one line."""
    return " ".join("".join(f"\\{one}" if one in "\\`*_[]<>|#" else one for one in name).split())
