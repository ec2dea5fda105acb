"""Pools of unlabelled examples, folders or tables, for `headstart next` and `headstart label`."""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.backbones.engines import Encoder
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.progress import Progress
from pipeline.examples.files import load
from pipeline.heads.head import Floats
from pipeline.kinds import Kind
from pipeline.serving.embedding import embed
from pipeline.serving.predict import examples_in, inside, spelt
from pipeline.sources.checked import Checked, check, drop_repeats
from pipeline.sources.found import Found, Refused, why_not

AT_ONCE = 512  # examples between two looks at the progress
POWER = 0.5  # of features without a head, as in `checks`


class Pool(NamedTuple):
    """The examples of a pool, each content once; all accepted paths with their digests."""

    place: Path
    kind: Kind
    examples: list[Checked]
    digests: dict[Path, str]
    refused: list[Refused]

    def unlabelled(self, known: Collection[str], name: str) -> list[Checked]:
        """Return the examples whose digests are not known, and print how many there are.

        Raises:
            DataError: there is none.
        """
        found = [one for one in self.examples if one.digest not in known]
        count, noun = len(self.digests) + len(self.refused), self.kind.noun
        copies = len(self.digests) - len(self.examples)
        print(
            f"{name}: {len(found)} of {count} {self.kind.nouns} have no label yet;"
            f" {len(self.examples) - len(found)} have one, {len(self.refused)} are not accepted"
            + (f", {copies} are copies of others" if copies else "")
        )
        if not self.examples and self.refused:
            first = f"{spelt(self.refused[0].path)} is not accepted: {self.refused[0].reason}"
            raise DataError(f"{self.place} has no {noun} that can be read: {first}")
        for path, reason in self.refused[:3]:
            print(f"{name}: {spelt(path)} is not accepted: {reason}")
        if not found:
            raise DataError(f"{self.place} has no {noun} without a label")
        return found


def opened(place: Path, kind: Kind, name: str, besides: Collection[Path] = ()) -> Pool:
    """Read all examples of a folder or a table, except the files `besides`.

    Raises:
        ParamsError: there is no such pool.
        DataError: the table cannot be read.
    """
    if not place.exists():
        raise ParamsError(f"{place} does not exist; give a folder or a table of examples")
    paths = inside(place) if place.is_dir() else examples_in(place, kind)
    odd = {path: why_not(path, place) if place.is_dir() else "" for path in paths}
    found = [Found(path, "") for path in paths if path not in besides and not odd[path]]
    passed, refused = check(found, kind, {}, name)
    refused += [Refused(path, reason) for path, reason in odd.items() if reason]
    kept, _ = drop_repeats(passed, kind)
    return Pool(place, kind, kept, {one.found.path: one.digest for one in passed}, refused)


def embedded(paths: Collection[Path], encoder: Encoder, batch_size: int, name: str) -> Floats:
    """Return the features [n, dimension] of examples, which may be outside of the project."""
    most, nouns = encoder.kind.most_bytes, encoder.kind.nouns
    wanted = [(str(path), partial(load, path, most)) for path in paths]
    parts, computed = [], 0
    with Progress(name, len(wanted), nouns) as progress:
        for start in range(0, len(wanted), AT_ONCE):
            some = embed(wanted[start : start + AT_ONCE], encoder, batch_size)
            parts.append(some.features)
            computed += some.computed
            progress.advance(len(some.features))
    print(f"{name}: {len(wanted)} views: {len(wanted) - computed} reused, {computed} computed")
    return np.concatenate(parts)
