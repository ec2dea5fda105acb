"""What is adapting a head to another domain worth, and does the rule know when not to?

    python -m benchmarks adapt FONTS ../shared/data/hymenoptera [--first 20] [--draws 5]

A head is trained on labelled source examples, as `train` and `adapt` do it, and adapted to target
examples without labels. Other target examples, whose labels nothing else sees, measure it. Each
draw takes source, target and test again. FONTS is a folder that packages of Debian are fetched to;
those that are there stay. What each draw gave is kept in benchmarks/adapt.json beside the page; a
draw that is there is not computed again. The numbers in the rule were chosen on draws 0 to 19.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from benchmarks import adapt_domains as domains
from benchmarks.adapt_domains import Domain
from benchmarks.harness import table
from pipeline.evaluation import paired
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split
from pipeline.transfer import adapting
from pipeline.transfer.adapting import CORAL, NONE, Evidence, Source

KEPT = Path(__file__).with_suffix(".json")
HEAD = Hyperparameters("lbfgs", weight_decay=0.003)
TARGET, TEST = 150, 400  # examples at most
VALIDATION = 0.25  # of the source examples
LEAST = 0.02  # expected share of a class in a mix that is drawn


class Pair(NamedTuple):
    """Source and target.

    `paired` says whether row i of both is the same example; `mix` is the parameter of the Dirichlet
    distribution that the target's classes are drawn by, and None leaves them as they are.
    """

    name: str
    source: Domain
    target: Domain
    examples: int
    paired: bool = False
    mix: float | None = None


def pairs(fonts: Path, hymenoptera: Path) -> Iterator[Pair]:
    """All pairs; one that names no other domain has the source's own."""
    surfaces, files = domains.surfaces(), domains.font_files(fonts)
    for shift in domains.SHIFTS:
        yield Pair(f"surfaces, {shift}", surfaces["train"], surfaces[f"test, {shift}"], 240)
    yield Pair("surfaces, other places", surfaces["train"], surfaces["test"], 240)
    digits, letters, news = domains.digits(files), domains.letters(files), domains.news()
    for name, form in (("digits", ""), ("digits as vectors", ", vectors")):
        by_hand, printed = digits[f"handwritten{form}"], digits[f"printed{form}"]
        yield Pair(f"{name}, handwritten to printed", by_hand, printed, 300)
        yield Pair(f"{name}, printed to handwritten", printed, by_hand, 300)
    for one, other in (("serif", "script"), ("sans", "script"), ("script", "serif")):
        yield Pair(f"letters, {one} to {other}", letters[one], letters[other], 600)
    yield Pair("letters, serif to sans", letters["serif"], letters["sans"], 600)
    yield Pair("news, titles to first paragraphs", news["titles"], news["first"], 300)
    yield Pair("news, titles to last paragraphs", news["titles"], news["last"], 300)
    yield Pair("news, first paragraphs to titles", news["first"], news["titles"], 300)

    by_hand, serif, titles = digits["handwritten"], letters["serif"], news["titles"]
    yield Pair("digits, another mix", by_hand, by_hand, 120, True, 0.5)
    yield Pair("letters, another mix", serif, serif, 300, True, 0.5)
    yield Pair("news, another mix", titles, titles, 120, True, 0.5)
    for shift in ("dark", "noisy"):
        target = surfaces[f"test, {shift}"]
        yield Pair(f"surfaces, {shift}, another mix", surfaces["train"], target, 240, False, 0.5)
    printed = digits["printed"]
    yield Pair("digits, handwritten to printed, another mix", by_hand, printed, 300, False, 0.5)
    vectors = digits["handwritten, vectors"], digits["printed, vectors"]
    name = "digits as vectors, handwritten to printed, another mix"
    yield Pair(name, *vectors, 300, False, 0.5)
    script = letters["script"]
    yield Pair("letters, serif to script, another mix", serif, script, 600, False, 0.5)
    yield Pair(
        "news, titles to last paragraphs, another mix", titles, news["last"], 300, False, 0.5
    )

    yield Pair("surfaces, the same", surfaces["train"], surfaces["train"], 240, True)
    yield Pair("digits, the same", by_hand, by_hand, 300, True)
    yield Pair("letters, the same", serif, serif, 600, True)
    yield Pair("news, the same", titles, titles, 300, True)
    insects = domains.hymenoptera(hymenoptera)
    yield Pair("ants and bees, another mix", insects, insects, 120, True, 0.3)
    yield Pair("ants and bees, the same", insects, insects, 200, True)


def rows(domain: Domain, chosen: npt.NDArray[np.int64], random: np.random.Generator) -> Split:
    """Examples of a domain, sorted by digests that are drawn, as those of files are at random."""
    names = np.array([f"{number:016x}" for number in random.integers(0, 2**63, len(chosen))])
    order = np.argsort(names)
    some = chosen[order]
    views = np.zeros(len(some), np.int32)
    return Split(names[order], names[order], views, domain.labels[some], domain.features[some])


def drawn(pair: Pair, seed: int, unlabelled: int) -> tuple[Split, Split, Split, Split]:
    """Training, validation, target and test examples."""
    random = np.random.default_rng(1000 + seed)
    order = random.permutation(len(pair.source.labels))
    source = order[: pair.examples]
    here = order[pair.examples :] if pair.paired else random.permutation(len(pair.target.labels))
    if pair.mix is not None:
        of_each = [here[pair.target.labels[here] == label] for label in range(classes(pair))]
        mix = random.dirichlet(np.full(len(of_each), pair.mix)) + LEAST
        mix /= mix.sum()
        # All examples of the class that is most frequent.
        total = len(of_each[int(mix.argmax())]) / mix.max()
        counts = np.maximum(1, np.round(mix * total)).astype(int)
        here = np.concatenate([one[:count] for one, count in zip(of_each, counts, strict=True)])
        here = random.permutation(here)
    unlabelled = min(unlabelled, len(here) // 2)
    learnt = round((1 - VALIDATION) * len(source))
    return (
        rows(pair.source, source[:learnt], random),
        rows(pair.source, source[learnt:], random),
        rows(pair.target, here[:unlabelled], random),
        rows(pair.target, here[unlabelled:][:TEST], random),
    )


def classes(pair: Pair) -> int:
    return int(pair.source.labels.max()) + 1


def trial(pair: Pair, seed: int, unlabelled: int) -> dict[str, Any]:
    """What a draw gives: the evidence, and how many test examples the head as it is has right.

    `gained` counts for each method those that it has right and the head as it is has not, and
    `lost` the others on which they differ.
    """
    train, val, target, test = drawn(pair, seed, unlabelled)
    schedule = Schedule(1, 1, 0, np.ones(classes(pair), np.float32))
    found = adapting.methods(Source(train, val, HEAD, schedule, "cpu", True), target.features)
    right = {
        name: way.head.logits(test.features).argmax(axis=1) == test.labels
        for name, way in found.items()
    }
    none = right[NONE]
    return {
        "classes": classes(pair),
        "evidence": asdict(adapting.evidence(found, target.features)),
        "examples": len(none),
        "right": int(none.sum()),
        "gained": {name: int((one & ~none).sum()) for name, one in right.items()},
        "lost": {name: int((none & ~one).sum()) for name, one in right.items()},
    }


def kept(every: Iterable[Pair], seeds: range, unlabelled: int) -> dict[str, list[dict[str, Any]]]:
    """The draws of each pair, which are computed where they are not kept."""
    known = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    found: dict[str, list[dict[str, Any]]] = {}
    for pair in every:
        found[pair.name] = []
        for seed in seeds:
            key = f"{pair.name}; {unlabelled} target; seed {seed}"
            if key not in known:
                known[key] = trial(pair, seed, unlabelled)
                KEPT.write_text(json.dumps(known, indent=0) + "\n")
            found[pair.name].append(known[key])
        print(row(pair.name, found[pair.name]), flush=True)
    return found


def chosen(found: dict[str, Any]) -> str:
    return adapting.choose(Evidence(**found["evidence"]), found["classes"])[0]


def gain(trials: list[dict[str, Any]], ways: list[str]) -> tuple[float, float, float, str]:
    """By how much the accuracy rises by a way of each draw: mean, ends of its interval, answer.

    The interval is Student's t over the draws. The answer is that of McNemar's test over the test
    examples of all draws (`evaluation/paired.py`).
    """
    gains, before, after = [], "", ""
    for one, way in zip(trials, ways, strict=True):
        gained, lost = one["gained"][way], one["lost"][way]
        gains.append((gained - lost) / one["examples"])
        wrong = one["examples"] - one["right"]
        before += "1" * one["right"] + "0" * wrong
        after += "0" * lost + "1" * (one["right"] - lost + gained) + "0" * (wrong - gained)
    old, new = (pd.DataFrame({"label": "1", "predicted": [*one]}) for one in (before, after))
    compared = paired.compare(old, new, "accuracy", False, 0.03, 15)
    assert compared is not None
    mean, spread = float(np.mean(gains)), float(np.std(gains, ddof=1))
    reach = spread / math.sqrt(len(gains)) * float(stats.t.ppf(0.975, len(gains) - 1))
    return mean, mean - reach, mean + reach, compared.answer


def row(name: str, trials: list[dict[str, Any]]) -> list[Any]:
    """The accuracy of the head as it is, the gain by CORAL, and that of what the rule chose."""
    none = float(np.mean([one["right"] / one["examples"] for one in trials]))
    mean, _, _, answer = gain(trials, [CORAL] * len(trials))
    of_coral = f"{mean:+.3f}" + SIGNS[answer]
    taken = [chosen(one) for one in trials]
    mean, low, high, answer = gain(trials, taken)
    said = ", ".join(f"{way} {count}" for way, count in Counter(taken).most_common())
    examples = sum(one["examples"] for one in trials)
    if set(taken) == {NONE}:
        return [name, examples, none, of_coral, said, None, None, "declined"]
    return [name, examples, none, of_coral, said, mean, f"{low:+.3f} to {high:+.3f}", answer]


SIGNS = {"better": " better", "worse": " **worse**", "cannot tell": ""}
COLUMNS = (
    "source and target | test {:,} | accuracy {:.3f} | CORAL |"
    " the rule took | gain {:+.3f} | 95 % interval | paired test"
)


def of_evidence(name: str, trials: list[dict[str, Any]]) -> list[Any]:
    """Means of what the rule knows."""
    known = [Evidence(**one["evidence"]) for one in trials]
    most = math.log(trials[0]["classes"])
    risen = [(one.information[CORAL] - one.information[NONE]) / most for one in known]
    surer = [(one.doubt[NONE] - one.doubt[CORAL]) / most for one in known]
    return [
        name,
        *(f"{np.mean(of):+.2f} ({min(of):+.2f} to {max(of):+.2f})" for of in (risen, surer)),
    ]


def measure(fonts: Path, hymenoptera: Path, first: int = 20, draws: int = 5) -> str:
    found = kept(pairs(fonts, hymenoptera), range(first, first + draws), TARGET)
    rows_of = [row(name, trials) for name, trials in found.items()]
    answers = Counter(one[-1] for one in rows_of)
    return PAGE.format(
        draws=f"{first} to {first + draws - 1}",
        target=TARGET,
        risen=adapting.RISEN,
        surer=adapting.SURER,
        summary=", ".join(f"{answer}: {count}" for answer, count in answers.most_common()),
        table=table(COLUMNS, rows_of),
        evidence=table(EVIDENCE, [of_evidence(*one) for one in found.items()]),
    )


EVIDENCE = "source and target | information: more | doubt: less"
PAGE = """# Adapting a head to another domain

Means over draws {draws}, with up to {target} unlabelled target examples each. The head is `lbfgs`
with `weight_decay: 0.003` on features of EfficientNet-Lite0 (texts: MiniLM; "as vectors": 64 grey
values). The accuracy is that of the head as it is, on test examples of the target; the next column
says by how much CORAL changes it, and the rest what `adapt.method: auto` took in each draw and
gained. Intervals are Student's t over the draws. "Better" and "worse" are McNemar's test
over the test examples of all draws at the level of 5 % (`evaluation/paired.py`). If a draw's test
examples are those of another draw too, they count each time. "Another mix": the target's classes
are in shares from a Dirichlet distribution. "The same": nothing differs.

The rule, pairs by what came of it: {summary}.

{table}

What the rule knows, without a label of the target. Information is the mutual information of target
examples and answers with CORAL, less that without; doubt is the mean entropy of an answer without,
less that with CORAL. Both are parts of the logarithm of the number of classes, means and the range
over the draws. If both are at least {risen} and {surer}, CORAL is taken.

{evidence}
"""
