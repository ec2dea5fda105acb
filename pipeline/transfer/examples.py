"""Labelled examples of a split, and batches of their views."""

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
from ..core.params import Augmentation
from ..examples.files import read
from ..kinds import Input, Kind, Maker, View, stop_if_windowed
from ..tables import targets
from .goal import Goal


@dataclass(frozen=True)
class Feed:
    """What turns examples into a backbone's input: kind, preprocessing and augmentation."""

    kind: Kind
    preprocessing: Input
    ranges: Augmentation

    def __post_init__(self) -> None:
        """Check that a network can be trained on views of the kind."""
        stop_if_windowed(self.kind)

    def training_view(self, digest: str, epoch: int) -> View:
        """Return a random view of an example for an epoch; if `views` is 0, the example itself."""
        if not self.ranges.views:
            return self.kind.original
        return self.kind.draw(digest, epoch, self.ranges)

    def batches(self, wanted: Iterable[list[tuple[str, str, View]]]) -> Iterator[Tensor]:
        """Yield batches of views; `wanted` has the path, the digest and the view of each."""
        return loaded(wanted, self.kind.inputs(self.preprocessing, "cpu"))


@dataclass(frozen=True)
class Labelled:
    """Examples of one split: n `paths`, n `digests`, and `labels` as `targets.of` returns them."""

    paths: list[str]
    digests: list[str]
    labels: npt.NDArray[Any]

    @classmethod
    def of(cls, manifest: pd.DataFrame, names: list[str], split: str) -> "Labelled":
        """Return the examples of `split`, sorted by digest; `names` are from `targets.names`."""
        rows = manifest[manifest["split"] == split].sort_values("digest")
        return cls(rows["path"].tolist(), rows["digest"].tolist(), targets.of(rows, names))

    def towards(self, goal: Goal) -> "Labelled":
        """Return the examples with the labels that are learned, in the units of the goal."""
        return replace(self, labels=goal.labels(self.labels))

    def __add__(self, other: "Labelled") -> "Labelled":
        """Concatenate the examples."""
        labels = np.concatenate([self.labels, other.labels])
        return Labelled(self.paths + other.paths, self.digests + other.digests, labels)


def loaded(wanted: Iterable[list[tuple[str, str, View]]], make_views: Maker) -> Iterator[Tensor]:
    """Yield batches of backbone inputs; each is computed while the previous one is trained on."""

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
    """Return the views as one tensor; shorter texts are padded with `PADDING`."""
    views = [future.result() for future in batch]
    if views[0].ndim > 1:
        return torch.from_numpy(np.stack(views))
    return nn.utils.rnn.pad_sequence(
        [torch.from_numpy(tokens) for tokens in views], batch_first=True, padding_value=PADDING
    )
