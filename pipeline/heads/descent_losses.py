"""The losses of `losses` for a stack of heads that descend: what is lowered, and its gradient.

Logits are [S, b, M, c]: of S seeds, b rows, M heads and c outputs. `importance` says how much each
row, or each cell of it, counts: [S, b, 1] or [S, b, M] of classes, [S, b, 1, c] or [S, b, M, c] of
labels and numbers; 0 where a head is not to learn from it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..tables.features import Split
from . import losses
from .trained import Schedule


@dataclass(frozen=True)
class Rows:
    """A split on the device.

    `features` are [n, d]. `labels` are [n], or [n, c] with 0 where they are unknown; `importance`
    is of the same shape, by class weight, and 0 where a label is unknown. `spread` [c] is that of
    `losses.spreads`; empty of classes.
    """

    features: Tensor
    labels: Tensor
    importance: Tensor
    spread: Tensor

    @classmethod
    def of(cls, split: Split, schedule: Schedule, device: str) -> "Rows":
        """Those of a split whose features, and whose numbers, are in the units of training."""
        features = torch.from_numpy(split.features).to(device)
        if schedule.loss == "softmax":
            labels = torch.from_numpy(split.labels).to(device)
            weights = torch.from_numpy(schedule.class_weights).to(device)
            return cls(features, labels, weights[labels], torch.zeros(0, device=device))
        cells = losses.LOSSES[schedule.loss].importance(split.labels, schedule.class_weights)
        known = np.nan_to_num(split.labels).astype(np.float32)
        spread = torch.from_numpy(losses.spreads(split.labels)).to(device)
        labels, importance = (torch.from_numpy(array).to(device) for array in (known, cells))
        return cls(features, labels, importance, spread)


class Loss(Protocol):
    """What the heads of a stack lower."""

    sums: int

    def learn(self, logits: Tensor, labels: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient by the logits of the minibatch's mean loss, and what `judge` says.

        Args:
            logits: [S, b, M, c]
            labels: [S, b], or [S, b, c]
            importance: of the rows or cells
        """

    def judge(self, logits: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """[sums, S, M]: the summed loss, and the summed scores."""

    def means(self, totals: Tensor, rows: Rows) -> Tensor:
        """Mean loss and accuracy (R²), [2, S, M], of the totals of all rows; NaN of no rows."""


class Softmax:
    """Cross-entropy of classes; the score is how many are right."""

    sums = 2

    def __init__(self, smoothing: Tensor, smoothed: bool, class_weights: Tensor) -> None:
        """What is the same for all minibatches.

        Args:
            smoothing: [1, 1, M, 1], the label smoothing of each head.
            smoothed: whether any head has some.
            class_weights: [c].
        """
        self.smoothing, self.has_smoothing = smoothing, smoothed
        self.class_weights = class_weights

    def learn(self, logits: Tensor, labels: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient is the given shares less the wanted ones."""
        surprise, correct, log_shares = _judge(logits, labels)
        totals = torch.stack([(surprise * importance).sum(dim=1), correct.sum(dim=1)])
        wanted = (1 - self.smoothing[0, 0, :, 0]) * importance
        spread = self.smoothing * self.class_weights / len(self.class_weights)
        if self.has_smoothing:
            spread = spread * (importance > 0)[..., None]
        gradient = log_shares.exp_() * (wanted + spread.sum(dim=-1))[..., None]
        if self.has_smoothing:
            gradient -= spread
        at = labels[:, :, None, None].expand(*wanted.shape, 1)
        gradient.scatter_add_(-1, at, -wanted[..., None])
        # A small batch may hold no example that a head is to learn from.
        gradient /= importance.sum(dim=1).clamp_min(1e-12)[:, None, :, None]
        return gradient, totals

    def judge(self, logits: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """Summed loss and number correct."""
        surprise, correct, _ = _judge(logits, labels)
        return torch.stack([(surprise * importance).sum(dim=1), correct.sum(dim=1)])

    def means(self, totals: Tensor, rows: Rows) -> Tensor:
        """Mean loss by class weight, and accuracy."""
        return torch.stack([totals[0] / rows.importance.sum(), totals[1] / len(rows.labels)])


def _judge(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy [S, b, M], whether correct [S, b, M], and log shares [S, b, M, c]."""
    log_shares = logits.log_softmax(dim=-1)
    at = labels[:, :, None, None].expand(*logits.shape[:3], 1)
    correct = logits.argmax(dim=-1) == labels[:, :, None]
    return -log_shares.gather(-1, at).squeeze(-1), correct, log_shares


class Cells:
    """Losses of labels by themselves, or of numbers; for labels the score is how many are right.

    Numbers have a score for each output: its squared errors, of which R² comes.
    """

    def __init__(self, loss: str, smoothing: Tensor, usual: Tensor) -> None:
        """What is the same for all minibatches.

        Args:
            loss: `binary`, `squared` or `huber`.
            smoothing: [1, 1, M, 1], the label smoothing of each head.
            usual: [c] or [M, c], the mean importance of an output's cells among the rows to learn
                from. Divided by it and by the rows of the minibatch, and not by the minibatch's own
                importance, a cell weighs alike however few known ones it is drawn with.
        """
        self.loss, self.smoothing, self.usual = loss, smoothing, usual.clamp_min(1e-12)
        self.sums = 2 if loss == "binary" else 1 + usual.shape[-1]

    def learn(self, logits: Tensor, labels: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient is that of the sum of the outputs' mean losses."""
        totals, wanted = self.judge(logits, labels, importance), labels[:, :, None]
        if self.loss == "binary":
            gradient = logits.sigmoid() - (wanted + self.smoothing * (0.5 - wanted))
        else:
            gradient = logits - wanted
            if self.loss == "huber":
                gradient = gradient.clamp_(-1, 1)
        return gradient * (importance / (self.usual * labels.shape[1])), totals

    def judge(self, logits: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """Summed loss, and the number right or the squared errors of each output."""
        wanted = labels[:, :, None]
        if self.loss == "binary":
            lost = torch.nn.functional.softplus(-logits.abs())
            lost += logits.clamp_min(0) - logits * wanted
            right = ((logits > 0) == (wanted > 0.5)) & (importance > 0)
            return torch.stack([(lost * importance).sum(dim=(1, 3)), right.sum(dim=(1, 3))])
        away = (logits - wanted).abs()
        squares = away.square()
        lost = squares / 2
        if self.loss == "huber":
            lost = torch.where(away <= 1, lost, away - 0.5)
        of_outputs = (squares * (importance > 0)).sum(dim=1).movedim(-1, 0)
        return torch.cat([(lost * importance).sum(dim=(1, 3))[None], of_outputs])

    def means(self, totals: Tensor, rows: "Rows") -> Tensor:
        """Mean loss and accuracy over the known cells; R² of numbers."""
        mean = totals[0] / rows.importance.sum()
        if self.loss == "binary":
            return torch.stack([mean, totals[1] / (rows.importance > 0).sum()])
        varying = rows.spread > 0
        shares = totals[1:][varying] / rows.spread[varying, None, None]
        return torch.stack([mean, 1 - shares.mean(dim=0)])


def cells(rows: Rows, some: Tensor, part: Tensor, values: Tensor) -> Tensor:
    """How much the cells of the rows `some` [1, b] count for each head, [1, b, M, c].

    Args:
        rows: n of them.
        some: positions.
        part: [n, M], the weight of each row for each head.
        values: [M, c, 2], for each head the weight of an output's labels of 0 and of 1.
    """
    of_0, of_1 = values.unbind(dim=-1)
    known = (rows.importance[some] > 0).unsqueeze(2)
    weights = of_0 + (of_1 - of_0) * rows.labels[some].unsqueeze(2)
    return part[some].unsqueeze(-1) * known * weights


def usual_cells(rows: Rows, part: Tensor, values: Tensor) -> Tensor:
    """The mean over all rows of what `cells` gives, [M, c]."""
    known = (rows.importance > 0).to(part.dtype)
    of_0, of_1 = values.unbind(dim=-1)
    both, of_label = part.T @ known, part.T @ (known * rows.labels)
    return (of_0 * both + (of_1 - of_0) * of_label) / len(part)
