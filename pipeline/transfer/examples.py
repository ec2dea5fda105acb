"""Labelled examples of a split, and what makes their views into batches."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from ..backbones.minilm_torch import PADDING
from ..core.errors import ParamsError
from ..core.params import Augmentation
from ..examples.files import read
from ..kinds import Input, Kind, Maker, View
from ..tables import targets
from .goal import Goal


@dataclass(frozen=True)
class Feed:
    """How examples become a backbone's input: their kind, its views and the augmentation."""

    kind: Kind
    preprocessing: Input
    ranges: Augmentation

    def __post_init__(self) -> None:
        """Refuse a kind whose views become several inputs: a network is trained on one.

        Raises:
            ParamsError: it is such a kind.
        """
        if self.kind.windowed:
            raise ParamsError(
                f"a network is trained on one input of each view, and {self.kind.nouns} become"
                " several: set finetune.run and from_scratch.run to []"
            )

    def training_view(self, digest: str, epoch: int) -> View:
        """The view of an example in an epoch, drawn for it; the example itself with `views` 0."""
        if not self.ranges.views:
            return self.kind.original
        return self.kind.draw(digest, epoch, self.ranges)

    def batches(self, wanted: Iterable[list[tuple[str, str, View]]]) -> Iterator[Tensor]:
        """Batches of views of examples, each a path, a digest and a view."""
        return loaded(wanted, self.kind.inputs(self.preprocessing, "cpu"))


@dataclass(frozen=True)
class Labelled:
    """Examples of one split: `paths` and `digests` of length n, `labels` as `targets.of` gives."""

    paths: list[str]
    digests: list[str]
    labels: npt.NDArray[Any]

    @classmethod
    def of(cls, manifest: pd.DataFrame, names: list[str], split: str) -> "Labelled":
        """The examples of `split`, sorted by digest; `names` as `targets.names` gives them."""
        rows = manifest[manifest["split"] == split].sort_values("digest")
        return cls(rows["path"].tolist(), rows["digest"].tolist(), targets.of(rows, names))

    def towards(self, goal: Goal) -> "Labelled":
        """The same with labels as they are learned."""
        return replace(self, labels=goal.labels(self.labels))

    def __add__(self, other: "Labelled") -> "Labelled":
        """Both, one after the other."""
        labels = np.concatenate([self.labels, other.labels])
        return Labelled(self.paths + other.paths, self.digests + other.digests, labels)


def loaded(wanted: Iterable[list[tuple[str, str, View]]], make_views: Maker) -> Iterator[Tensor]:
    """Batches of views as the backbone takes them; the next is made while one is trained on."""

    def one(path: str, digest: str, view: View) -> npt.NDArray[Any]:
        made: npt.NDArray[Any] = make_views([(read(Path(path), digest), [view])])[0]
        return made

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        coming: deque[list[Future[npt.NDArray[Any]]]] = deque()
        for batch in wanted:
            coming.append([pool.submit(one, *asked) for asked in batch])
            if len(coming) > 1:
                yield _stacked(coming.popleft())
        while coming:
            yield _stacked(coming.popleft())


def _stacked(batch: list[Future[npt.NDArray[Any]]]) -> Tensor:
    """The views as one tensor; of texts the shorter ones are filled up with `PADDING`."""
    views = [future.result() for future in batch]
    if views[0].ndim > 1:
        return torch.from_numpy(np.stack(views))
    return nn.utils.rnn.pad_sequence(
        [torch.from_numpy(tokens) for tokens in views], batch_first=True, padding_value=PADDING
    )
