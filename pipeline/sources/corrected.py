"""Apply the corrections in `corrections/` to the examples of a source, which stays as it is."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from ..core.errors import DataError
from ..core.params import IngestParams
from ..tables import targets
from ..tables.corrections import EXCLUDE, GROUP, LABEL, Correction
from ..tables.labels import listed
from ..tables.manifest import TARGET, UNLABELLED
from .checked import Checked
from .found import Found, Refused, tidy, why_no_label

RIGHT = "right"  # a value that is confirmed
# What is counted: one, and several.
COUNTED = {
    LABEL: ("label changed", "labels changed"),
    TARGET: ("target changed", "targets changed"),
    GROUP: ("moved to another group", "moved to another group"),
    EXCLUDE: ("excluded", "excluded"),
    RIGHT: ("confirmed", "confirmed"),
}
SHOWN = 12  # digits of a digest in messages


class Corrected(NamedTuple):
    """The examples after the corrections, those that are excluded, and remarks to print.

    `confirmed` has digests and labels that are right, and `by` the file that changed or excluded an
    example, by digest.
    """

    examples: list[Checked]
    excluded: list[Refused]
    confirmed: set[tuple[str, str]]
    by: dict[str, Path]
    remarks: list[str]


def corrected(
    passed: list[Checked], corrections: list[Correction], settings: IngestParams
) -> Corrected:
    """Apply corrections to the examples with their digests.

    A correction applies if an example has the old value, or if it excludes the example. If several
    corrections set one field of one example to different values, none of these applies.

    Raises:
        DataError: a new label or target cannot be learned.
    """
    agreed, remarks = _agreed(corrections)
    places: dict[str, list[int]] = {one.digest: [] for one in agreed}
    for place, example in enumerate(passed if places else ()):
        if example.digest in places:
            places[example.digest].append(place)
    examples, gone = list(passed), dict[int, Refused]()
    confirmed, by = set[tuple[str, str]](), dict[str, Path]()
    counts, outdated = Counter[str](), list[str]()
    for one in agreed:
        reason, applies = "no example has this digest", ""
        for place in places[one.digest]:
            before = examples[place].found
            after = _changed(before, one, settings)
            if isinstance(after, str):
                reason = after
                continue
            examples[place] = examples[place]._replace(found=after)
            applies = TARGET if one.field.startswith(TARGET) else one.field
            if one.field == LABEL:
                confirmed.add((one.digest, after.label))
            if one.field == EXCLUDE:
                words = f"excluded by {one.file}" + f": {one.why}" * bool(one.why)
                gone[place] = Refused(after.path, words)
            elif after == before:
                applies = RIGHT
                continue
            by[one.digest] = one.file
        if applies:
            counts[applies] += 1
        else:
            outdated.append(f"{one.file}, line {one.line} ({reason})")
    if counts:
        parts = [f"{n} {COUNTED[of][n > 1]}" for of in COUNTED if (n := counts[of])]
        apply = "correction applies" if counts.total() == 1 else "corrections apply"
        remarks.append(f"{counts.total()} {apply}: {', '.join(parts)}")
    if outdated:
        apply = "correction does" if len(outdated) == 1 else "corrections do"
        remarks.append(f"warning: {len(outdated)} {apply} not apply any more: {listed(outdated)}")
    kept = [example for place, example in enumerate(examples) if place not in gone]
    return Corrected(kept, list(gone.values()), confirmed, by, remarks)


def _agreed(corrections: list[Correction]) -> tuple[list[Correction], list[str]]:
    """Return the corrections without contradictions, changes first, and warnings of the others.

    If some are equal, the first stays.
    """
    of_field: dict[tuple[str, str], dict[tuple[str, str], Correction]] = defaultdict(dict)
    for one in corrections:
        of_field[one.digest, one.field].setdefault((tidy(one.old), tidy(one.new)), one)
    agreed: list[Correction] = []
    against: dict[str, list[str]] = defaultdict(list)
    for (digest, field), values in of_field.items():
        new = {value for _, value in values}
        if len(new) == 1:
            agreed += values.values()
            continue
        files = " and ".join(sorted({str(one.file) for one in values.values()}))
        lines = ", ".join(str(one.line) for one in values.values())
        words = f"the {field} of {digest[:SHOWN]} (lines {lines}): {' or '.join(sorted(new))}"
        against[files].append(words)
    remarks = [
        f"warning: {files} contradict{'' if ' and ' in files else 's'}"
        f" {'each other' if ' and ' in files else 'itself'} about {listed(words)}; neither applies"
        for files, words in against.items()
    ]
    return sorted(agreed, key=lambda one: (one.old == one.new, one.digest, one.field)), remarks


def _changed(found: Found, one: Correction, settings: IngestParams) -> Found | str:
    """Return the example after a correction, or why the correction does not apply.

    Raises:
        DataError: the new value cannot be learned.
    """
    if one.field == EXCLUDE:
        return found
    if one.field == GROUP:
        if found.group != tidy(one.old):
            return f"its group is {found.group!r}"
        return found._replace(group=tidy(one.new))
    if found.split == UNLABELLED:
        return "it has no label"
    read, columns = targets.of_task(settings.task).read, tuple(settings.targets or ())
    old, new, cells = tidy(one.old), tidy(one.new), found.cells
    try:
        if one.field == LABEL:
            if found.label != (old if columns else _read_label(old, settings)):
                return f"its label is {found.label!r:.40}"
            if old == new:
                return found
            if columns:
                return "ingest.targets names columns: correct target:NAME instead"
            if reason := why_no_label(new):
                raise ValueError(reason)
            label, values = read(new, (), ())
        else:
            name = tidy(one.field.removeprefix(TARGET))
            if name not in map(tidy, columns):
                return f"ingest.targets has no column {name!r:.40}"
            at = [tidy(column) for column in columns].index(name)
            now = cells[at]
            if _number(name, now, settings) != _number(name, one.old, settings):
                return f"its {name} is {now!r:.40}"
            cells = (*cells[:at], one.new, *cells[at + 1 :])
            label, values = read(found.label, columns, cells)
    except ValueError as error:
        raise DataError(f"{one.file}, line {one.line}: {error}: correct or delete it") from None
    return found._replace(label=label, targets=values, cells=cells)


def _read_label(text: str, settings: IngestParams) -> str:
    """Return a label as `targeted` does; an invalid one stays as it is."""
    try:
        return targets.of_task(settings.task).read(text, (), ())[0]
    except ValueError:
        return text


def _number(name: str, text: str, settings: IngestParams) -> tuple[float, ...] | str:
    """Return the value of a cell in a column of targets, or its text if it has none."""
    try:
        return targets.of_task(settings.task).read("", (name,), (text,))[1]
    except ValueError:
        return tidy(text)
