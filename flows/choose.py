"""`headstart choose`: compare backbones and joins of them, and write the best into `params.yaml`.

A choice is a parameter: it is written down, committed, and read by the stages like any other. What
the feature store holds is not computed again, so a second look takes seconds.
"""

import re
import time

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from pipeline import kinds
from pipeline.backbones.engines import Engine, open_engine
from pipeline.core import params
from pipeline.core.errors import ParamsError
from pipeline.core.paths import MANIFEST, PARAMS
from pipeline.evaluation.comparing import words
from pipeline.kinds import Kind
from pipeline.runners.threads import features_of
from pipeline.runners.wanted import originals
from pipeline.tables import joined, targets
from pipeline.tables.features import Split
from pipeline.tables.manifest import kind_in, read_manifest, task_in
from pipeline.transfer.choice import Candidate, difference, folds, judged, unions, winner

TIMED = 16  # examples that tell what one costs


def choose(networks: list[str] | None = None, budget: float | None = None) -> None:
    """Judge the networks and their joins, print a table, and write the winner into `params.yaml`.

    Training and validation examples are used, never test examples.

    Args:
        networks: to choose from; None for those of `rank.backbones` and `extract.backbone`.
        budget: milliseconds that an example may cost when predicting.

    Raises:
        DataError: there is no manifest, or too few examples.
        ParamsError: there is no such network.
    """
    settings = params.load(kinds.schema)
    for name, usual in (("weights", "pretrained"), ("pooling", "auto")):
        value = getattr(settings.extract, name)
        if value not in (usual, "random"):  # which would then be asked of the winner too
            raise ParamsError(
                f"choose compares networks with their own weights and pooling: set extract.{name},"
                f" which is {value}, to {usual}; rank compares yours with others"
            )
    kind, manifest = kinds.named(kind_in(MANIFEST)), read_manifest(MANIFEST)
    examples = manifest[manifest["split"].isin(["train", "val"])]
    examples = examples.sort_values("digest", ignore_index=True)
    task, outputs = task_in(MANIFEST), targets.names(manifest)
    labels = targets.of(examples, outputs)
    groups = examples["group"].where(examples["group"] != "", examples["digest"]).tolist()
    held_out = folds(labels, groups)

    names = networks or _networks(settings)
    features, costs, engines = {}, {}, {}
    for name in names:
        asked = settings.extract.model_copy(update={"backbone": name, "weights": "pretrained"})
        params.extract_section({"backbone": name}, "choose")  # that it is a name
        engine = engines[name] = open_engine(asked, kind)
        splits, computed = originals(examples, outputs, [engine], asked.batch_size, power=1.0)
        features[name] = _in_order(splits, examples)
        costs[name] = _milliseconds(examples, engine, kind)
        print(f"choose: {name}: {len(examples) - computed} views reused, {computed} computed")

    candidates = []
    for name in unions(names):
        parts = joined.names(name)
        counts = [part for part in parts if engines[part].takes == "terms"]
        if counts and len(parts) > 1:
            continue  # the head weighs counts by TF-IDF, and cannot see them beside others
        cost = sum(costs[part] for part in parts)
        found = [features[part] for part in parts]
        how = held_out, settings.train.power, bool(counts), cost, task
        candidates.append(judged(name, found, labels, *how))
    taken, best = winner(candidates, budget)
    print(table(candidates, taken, best, words(task)))
    write(taken.name)


def table(
    candidates: list[Candidate], taken: Candidate, best: Candidate, measure: str = "accuracy"
) -> str:
    """The candidates, the one of the lowest loss first; `measure` names their score."""
    width, wide = max(len(one.name) for one in candidates), max(len(measure), 8)
    lines = [
        f"{'backbone':{width}}  {'loss':>7}  {'more than the best':>22}  {measure:>{wide}}  ms each"
    ]
    for one in sorted(candidates, key=lambda one: float(one.losses.mean())):
        apart = difference(one.losses, best.losses)
        shown = "the best" if one is best else f"{apart.low:+.4f} to {apart.high:+.4f}"
        mark = "  <- taken" if one is taken else ""
        lines.append(
            f"{one.name:{width}}  {one.losses.mean():7.4f}  {shown:>22}  {one.score:{wide}.4f}"
            f"  {one.milliseconds:7.1f}{mark}"
        )
    return "\n".join(lines)


def write(backbone: str) -> None:
    """Write `extract.backbone` into `params.yaml`, and leave every other line as it is.

    Raises:
        ParamsError: the line cannot be found.
    """
    text = PARAMS.read_text(encoding="utf-8")
    before = yaml.safe_load(text)["extract"].get("backbone")
    if before == backbone:
        print(f"choose: {PARAMS} has extract.backbone {backbone} already")
        return
    section = re.search(r"^extract:.*\n(?:(?:[ #].*)?\n)*", text, re.MULTILINE)
    changed = text
    if section:
        line = re.compile(r"^(?P<key> +backbone: *)[^ #\n]+", re.MULTILINE)
        inside = line.sub(rf"\g<key>{backbone}", section[0], count=1)
        changed = text[: section.start()] + inside + text[section.end() :]
    if yaml.safe_load(changed)["extract"].get("backbone") != backbone:
        raise ParamsError(f"choose: write this into {PARAMS}: `extract: {{backbone: {backbone}}}`")
    PARAMS.write_text(changed, encoding="utf-8")
    print(
        f"choose: {PARAMS} has extract.backbone {backbone} now, instead of {before};"
        " commit it, and run `make repro`"
    )


def _networks(settings: params.Params) -> list[str]:
    """The networks that the parameters name, each once; none that is untrained."""
    named = [*joined.names(settings.extract.backbone), *settings.rank.backbones]
    each = [name for one in named if not one.startswith("random:") for name in joined.names(one)]
    return list(dict.fromkeys(each))


def _in_order(splits: dict[str, Split], examples: pd.DataFrame) -> NDArray[np.float32]:
    """Features in the order of the examples."""
    digests = np.concatenate([split.digests for split in splits.values()])
    rows: NDArray[np.float32] = np.concatenate([split.features for split in splits.values()])
    place = pd.Index(digests).get_indexer(examples["digest"])
    in_order: NDArray[np.float32] = rows[place]
    return in_order


def _milliseconds(examples: pd.DataFrame, engine: Engine, kind: Kind) -> float:
    """What an example costs on one core, from decoding to features: the best of three goes."""
    original = dict(zip(kind.view_columns, kind.original, strict=True))
    some = examples.head(TIMED).assign(view=0, **original, key=b"")
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        features_of(some, engine, batch_size=1)
        seconds.append(time.monotonic() - start)
    return 1000 * min(seconds) / len(some)
