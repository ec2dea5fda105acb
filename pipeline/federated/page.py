"""`site/site.md`: a page that describes a submission and what it may reveal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .ledger import Ledger, count
from .privacy import Noise
from .submission import ABOUT, NUMBERS

MOST_CLASSES = 100  # in the table
DESCRIPTION = "names of the site and of the classes, the network behind the features, checksums"


def page(
    folder: Path,
    about: dict[str, Any],
    counts: Mapping[str, int],
    rows: int,
    ledger: Ledger,
    near: list[tuple[int, str, int]],
    noise: Noise | None,
) -> str:
    """Return the text of the page.

    Args:
        about: the content of the submission's `submission.json`.
        rows: the number of vectors in the sums, one per view of an example.
        ledger: the ledger, with this submission.
        near: for each similar earlier submission its number, a class, and the number of examples
            of this class that differ.
        noise: the noise in the sums; None without noise.
    """
    number, dimension = about["number"], about["backbone"]["dimension"]
    classes, examples = len(about["classes"]), sum(counts.values())
    sizes = {name: (folder / name).stat().st_size for name in (NUMBERS, ABOUT)}
    fewest = min(counts.items(), key=lambda item: (item[1], item[0]))
    parts = [
        f"# What leaves this site: submission {number} of {about['site']}",
        f"The folder `{folder}` may leave this site. Keep this page and `{ledger.file}` here: the"
        " ledger has a digest of every example.",
        _table(
            "file | bytes | content",
            [
                [f"`{NUMBERS}`", f"{sizes[NUMBERS]:,}", "the sums below, in float64"],
                [f"`{ABOUT}`", f"{sizes[ABOUT]:,}", DESCRIPTION],
            ],
        ),
        _table("sum | shape | numbers | what it is", _sums(dimension, classes, bool(noise))),
        "The folder contains no examples, no file names and no single feature vectors.",
        "## How many examples are summed",
        f"{examples:,} examples of {classes} classes, which give {rows:,} vectors of"
        f" {dimension:,} numbers: every training example in each of its views, and every"
        f" validation example if `train.refit` is true. The smallest class is {fewest[0]}, with"
        f" {fewest[1]:,} examples.",
        _counts(counts),
        "## What can be inferred from it",
        *_readable(rows, dimension, fewest, ledger, near, noise),
        *_together(about["noise"]),
        "## All submissions of this site",
        _history(ledger),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sums(dimension: int, classes: int, noisy: bool) -> list[list[str]]:
    triangle = dimension * (dimension + 1) // 2
    of_classes, count = f"[{classes}]", f"{classes:,}"
    described = [
        [
            "`gram`",
            f"[{triangle}]",
            f"{triangle:,}",
            "sum of the products of each pair of features",
        ],
        [
            "`class_sums`",
            f"[{classes}, {dimension}]",
            f"{classes * dimension:,}",
            "sum of the vectors of each class",
        ],
        ["`rows`", of_classes, count, "how many vectors each class has"],
    ]
    if not noisy:
        use = "how many examples each class has"
        described.append(["`examples`", of_classes, count, use])
    return described


def _counts(counts: Mapping[str, int]) -> str:
    few = sorted(counts.items(), key=lambda item: (item[1], item[0]))[:MOST_CLASSES]
    more = f"\n\nThe {MOST_CLASSES} smallest of {len(counts):,} classes are shown."
    rows = [[label, f"{number:,}"] for label, number in few]
    return _table("class | examples", rows) + more * (len(counts) > MOST_CLASSES)


def _readable(
    rows: int,
    dimension: int,
    fewest: tuple[str, int],
    ledger: Ledger,
    near: list[tuple[int, str, int]],
    noise: Noise | None,
) -> list[str]:
    if noise:
        return [
            f"Every number has noise: this submission is ({noise.epsilon:g}, {noise.delta:g})"
            f"-differentially private. Vectors were clipped to a length of {noise.clip:g}. Even"
            " someone who knows all examples but one learns little about whether that one is among"
            " them. The class names are sent without noise.",
        ]
    risks = [
        f"The mean vector of each class. The class {fewest[0]} has {fewest[1]:,} examples: the"
        " fewer they are, the closer their mean is to each of them. The sum over one example would"
        " be its vector, and a picture can partly be reconstructed from its feature vector.",
    ]
    risks.append(
        "Perhaps more: there is no proof that single vectors cannot be reconstructed. The fewer"
        " vectors there are per feature, the more of them can be."
    )
    if rows < dimension:
        risks.append(
            f"Membership: {rows:,} vectors are fewer than the {dimension:,} features, so anyone who"
            " has an example can test almost without error whether it is one of them."
        )
    elif rows < 2 * dimension:
        risks.append(
            f"Membership: {rows:,} vectors are fewer than twice the {dimension:,} features, so"
            " anyone who has an example can test whether it is one of them. The more vectors there"
            " are, the more errors this test makes."
        )
    else:
        risks.append(
            "Membership, only by guessing: anyone who has an example can compare it with the mean"
            " of its class and with the other sums. The more vectors there are per feature, the"
            " less this reveals."
        )
    for number, label, differs in near:
        whose = "the sum of their vectors" if differs > 1 else "its vector"
        risks.append(
            f"**{differing(label, differs)} from submission {number}: anyone who has both can"
            f" compute {whose} by subtraction.** Send this submission only if that is acceptable,"
            " or wait until more examples have changed."
        )
    return risks


def differing(label: str, differs: int) -> str:
    """Return `1 example of class fur differs` or `3 examples of class fur differ`."""
    one = differs == 1
    return f"{differs} example{'s' * (not one)} of class {label} differ{'s' * one}"


def _together(noise: Mapping[str, Any] | None) -> list[str]:
    """Describe the joint privacy of all submissions; return nothing if this one has no noise."""
    if not noise:
        return []
    if noise["total_epsilon"] is None:
        return [
            "**An earlier submission had no noise, so there is no such bound for all of them"
            " together.**"
        ]
    total, delta = noise["total_epsilon"], noise["delta"]
    return [f"All submissions so far together are ({total:.3g}, {delta:g})-differentially private."]


def _history(ledger: Ledger) -> str:
    rows = []
    for place, (entry, held) in enumerate(zip(ledger.entries, ledger.held, strict=True)):
        before = ledger.held[place - 1] if place else {}
        noise = entry.noise
        privacy = f"({noise['epsilon']:g}, {noise['delta']:g})" if noise else "none"
        changed = f"{count(before, held):,}" if place else "–"
        rows.append([str(entry.number), entry.when, f"{len(held):,}", changed, privacy])
    columns = "number | when (UTC) | examples | different from the one before | noise (ε, δ)"
    return _table(columns, rows)


def _table(columns: str, rows: list[list[str]]) -> str:
    names = [name.strip() for name in columns.split("|")]
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
