"""`headstart choose`: compare single and joined backbones, and write the best to `params.yaml`.

The chosen backbone is a parameter: it is written down, committed, and read by the stages like any
other. Features in the feature store are not computed again, so a second comparison takes seconds.
"""

import re

import yaml

from pipeline import kinds
from pipeline.core import params
from pipeline.core.backbone import IN_PYTORCH, Backbone
from pipeline.core.errors import ParamsError
from pipeline.core.paths import MANIFEST, PARAMS
from pipeline.evaluation.comparing import words
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
        ParamsError: there is no such network.
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
        params.extract_section({"backbone": name}, "choose")  # check the name
    # The head weights counts of terms by TF-IDF, which is impossible if other features are joined.
    names = [name for name in unions(networks or _networks(settings)) if not _joins_terms(name)]
    confidence = settings.rank.confidence
    extracting, power = settings.extract, settings.train.power
    candidates = compare(extracting, power, names, MANIFEST, confidence, "choose").candidates
    taken, best = winner(candidates, budget, confidence)
    print(table(candidates, taken, best, confidence, words(task_in(MANIFEST))))
    write(taken.name)


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
        f"  {measure:>{wide}}  ms each"
    ]
    above = apart(candidates, best, confidence)
    for one in candidates:
        further = above.get(one.name)
        shown = f"{further.low:+.4f} to {further.high:+.4f}" if further else "the best"
        p_value = f"{further.p_value:.2g}" if further else ""
        mark = "  <- chosen" if one is taken else ""
        lines.append(
            f"{one.name:{width}}  {one.losses.mean():7.4f}  {shown:>22}  {p_value:>6}"
            f"  {one.score.value:{wide}.4f}  {one.milliseconds:7.1f}{mark}"
        )
    return "\n".join(lines)


def write(backbone: str) -> None:
    """Write `extract.backbone` into `params.yaml`, and leave all other lines unchanged.

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
        raise ParamsError(
            f"choose cannot change {PARAMS}: write `extract: {{backbone: {backbone}}}` into it"
        )
    PARAMS.write_text(changed, encoding="utf-8")
    print(
        f"choose: {PARAMS} has extract.backbone {backbone} now, instead of {before};"
        " commit it, and run `headstart repro`"
    )


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


def _joins_terms(name: str) -> bool:
    backbone = Backbone.parse(name)
    return backbone.is_joined and any(one.name == "tf_idf" for one in backbone.each)
