"""`headstart choose`: compare single and joined backbones, and write the best to `params.yaml`.

In classification, each backbone is compared with the head and layers that suit it best. The
choice is written to `params.yaml`, where you commit it and the stages read it like any parameter.
Features in the feature store are not computed again, so a second comparison takes seconds.
"""

import os
import re
from typing import Any

import yaml

from pipeline import kinds
from pipeline.core import params
from pipeline.core.backbone import IN_PYTORCH, Backbone
from pipeline.core.errors import ParamsError
from pipeline.core.paths import MANIFEST, PARAMS
from pipeline.evaluation.comparing import words
from pipeline.heads.penalty import USUAL
from pipeline.tables.layers import LAST
from pipeline.tables.manifest import task_in
from pipeline.transfer.comparison import Candidate, apart, compare, unions, winner


def choose(networks: list[str] | None = None, budget: float | None = None) -> None:
    """Compare networks and their joins, print a table, and write the winner into `params.yaml`.

    Only training and validation examples are used.

    Args:
        networks: the candidates; None for `rank.backbones`, `extract.backbone` and the floor.
        budget: milliseconds that prediction may take per example.

    Raises:
        DataError: there is no manifest, or too few examples.
        ParamsError: there is no such network, `extract.weights` or `extract.pooling` is set, or
            `params.yaml` cannot be changed.
    """
    settings = params.load(kinds.schema)
    for name, default in (("weights", "pretrained"), ("pooling", "auto")):
        value = getattr(settings.extract, name)
        if value not in (default, "random"):  # the winner would need this parameter too
            raise ParamsError(
                f"choose compares networks with their own weights and pooling: set extract.{name},"
                f" which is {value}, to {default}; rank compares your own with others"
            )
    for name in networks or []:
        params.extract_section({"backbone": name}, "--networks")  # check the name
    names = _candidates(settings, networks)
    confidence = settings.rank.confidence
    training = settings.train
    how = MANIFEST, confidence, "choose", training
    candidates = compare(settings.extract, training.power, names, *how).candidates
    taken, best = winner(candidates, budget, confidence)
    print(table(candidates, taken, best, confidence, words(task_in(MANIFEST))))
    write(chosen(taken, training))


def table(
    candidates: list[Candidate],
    taken: Candidate,
    best: Candidate,
    confidence: float,
    measure: str = "accuracy",
) -> str:
    """Format the candidates as a table, lowest loss first; `measure` is the name of their score."""
    width, wide = max(len(one.name) for one in candidates), max(len(measure), 8)
    lines = [
        f"{'backbone':{width}}  {'loss':>7}  {'more than the best':>22}  {'p':>6}"
        f"  {measure:>{wide}}  ms each  head"
    ]
    above = apart(candidates, best, confidence)
    for one in candidates:
        further = above.get(one.name)
        shown = f"{further.low:+.4f} to {further.high:+.4f}" if further else "the best"
        p_value = f"{further.p_value:.2g}" if further else ""
        mark = "  <- chosen" if one is taken else ""
        lines.append(
            f"{one.name:{width}}  {one.losses.mean():7.4f}  {shown:>22}  {p_value:>6}"
            f"  {one.score.value:{wide}.4f}  {one.milliseconds:7.1f}  {_head(one)}{mark}"
        )
    return "\n".join(lines)


def _head(one: Candidate) -> str:
    if not one.head:
        return "linear probe"
    of = {"all": ", all layers", "last": ", last layer", "": ""}[one.head.of]
    return f"{one.head.hyperparameters.optimizer}{of}"


def chosen(taken: Candidate, training: params.TrainParams) -> dict[str, str | float]:
    """Return the parameters of a candidate, by name."""
    found: dict[str, str | float] = {"extract.backbone": taken.name}
    if not taken.head:
        return found
    used = taken.head.hyperparameters
    if taken.head.of == "all":
        found["extract.blocks"] = "all"
    found |= {"train.optimizer": used.optimizer, "train.layers": taken.head.of or LAST}
    if isinstance(training.weight_decay, list) and used.weight_decay:
        found["train.weight_decay"] = used.weight_decay
    elif training.weight_decay == params.AUTO and used.optimizer == "lda":  # LDA has no penalty
        found["train.weight_decay"] = USUAL
    return found


def write(asked: dict[str, str | float]) -> None:
    """Write parameters into `params.yaml`, and leave all other lines unchanged.

    Raises:
        ParamsError: a line cannot be found.
    """
    text = PARAMS.read_text(encoding="utf-8")
    before = yaml.safe_load(text)
    new = {name: value for name, value in asked.items() if _value(before, name) != value}
    words = ", ".join(f"{name} {value}" for name, value in (new or asked).items())
    if not new:
        print(f"choose: {PARAMS} has {words} already")
        return
    for name, value in new.items():
        section, _, key = name.partition(".")
        text = _put(text, section, key, f"{value}")
    try:
        after = yaml.safe_load(text)
    except yaml.YAMLError:  # the old value is a list on several lines
        after = before
    if not os.access(PARAMS, os.W_OK) or any(
        _value(after, name) != value for name, value in new.items()
    ):
        raise ParamsError(f"choose cannot change {PARAMS}: write {words} into it")
    PARAMS.write_text(text, encoding="utf-8")
    old = ", ".join(f"{_value(before, name)}" for name in new)
    print(
        f"choose: {PARAMS} has {words} now, instead of {old}; commit it, and run `headstart repro`"
    )


def _value(document: dict[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    inside = document.get(section)
    return inside.get(key) if isinstance(inside, dict) else None


def _put(text: str, section: str, key: str, value: str) -> str:
    """Set a parameter on its line, or on a new one at the beginning of its section."""
    found = re.search(rf"^{section}:.*\n(?:(?:[ #].*)?\n)*", text, re.MULTILINE)
    if not found:
        return text
    line = re.compile(rf"^(?P<key> +{key}: *)[^#\n]*?(?P<rest> *(?:#.*)?)$", re.MULTILINE)
    inside, count = line.subn(rf"\g<key>{value}\g<rest>", found[0], count=1)
    if not count:
        header, _, rest = found[0].partition("\n")
        inside = f"{header}\n  {key}: {value}\n{rest}"
    return text[: found.start()] + inside + text[found.end() :]


def _networks(settings: params.Params) -> list[str]:
    """Return the named networks and the floor, without repeats and untrained networks."""
    floor = kinds.named(settings.ingest.kind).floor
    named = [settings.extract.backbone, *filter(None, [floor])]
    of_pictures = any(one.family in IN_PYTORCH for one in settings.extract.network.each)
    # The default of `rank.backbones` is for pictures, and needs packages that others do without.
    if of_pictures or "backbones" in settings.rank.model_fields_set:
        named[1:1] = settings.rank.backbones
    each = [one for name in named for one in Backbone.candidate(name).each]
    return list(dict.fromkeys(str(one) for one in each if one.weights != "random"))


def _candidates(settings: params.Params, networks: list[str] | None) -> list[str]:
    """Return the networks to compare, their joins, the floor, and a joined `extract.backbone`."""
    floor = None if networks else kinds.named(settings.ingest.kind).floor
    named = networks or _networks(settings)
    # The head weights counts of terms by TF-IDF, which is impossible if other features are joined.
    names = [
        name for name in unions([one for one in named if one != floor]) if not _joins_terms(name)
    ]
    # No join with the floor is compared, except the project's own: each candidate more weakens the
    # tests.
    names += [floor] if floor in named and floor is not None and floor not in names else []
    own = settings.extract.network
    if not networks and own.is_joined and all(one.weights != "random" for one in own.each):
        names += [str(own)] if str(own) not in names else []
    return names


def _joins_terms(name: str) -> bool:
    backbone = Backbone.parse(name)
    return backbone.is_joined and any(one.name == "tf_idf" for one in backbone.each)
