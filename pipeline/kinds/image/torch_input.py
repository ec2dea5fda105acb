"""A picture of any size to a backbone's pixels, in PyTorch."""

import torch
from torch import Tensor

from .. import Pixels
from .preprocess import REACH


def preprocess(picture: Tensor, preprocessing: Pixels) -> Tensor:
    """What `preprocess.py` does with a picture: uint8 [height, width, 3] to [crop, crop, 3].

    As `onnx_input.graph`, which says how it differs from Pillow.
    """
    rows, columns = picture.shape[:2]
    down, fewer_rows = axis_weights(rows, min(rows, columns), preprocessing)
    across, fewer_columns = axis_weights(columns, min(rows, columns), preprocessing)
    if fewer_rows > 0 and fewer_rows > 2 * fewer_columns:
        return _scale(picture, down, across).to(torch.uint8)
    turned = _scale(picture.transpose(0, 1), across, down)
    return turned.transpose(0, 1).to(torch.uint8)


def axis_weights(length: int, shorter: int, preprocessing: Pixels) -> tuple[Tensor, int]:
    """What each pixel that is left of an axis is made of, and how many fewer there are.

    Args:
        length: pixels of the axis.
        shorter: pixels of the shorter axis.
        preprocessing: what is wanted.

    Returns:
        weights [crop, length], and the pixels by which scaling shortens the axis.
    """
    resize = max(preprocessing.resize, preprocessing.crop)
    factor = resize / shorter
    scaled = max(round(length * factor), resize)
    cut = max((scaled - REACH * resize) // 2, 0)
    ends = torch.tensor([cut / factor, min((scaled - cut) / factor, length)])  # float32, as Pillow
    start, pixels = float(ends[0]), scaled - 2 * cut
    scale = float(ends[1] - ends[0]) / pixels
    stretch = max(scale, 1.0)
    bicubic = preprocessing.interpolation == "bicubic"
    radius = stretch * (2 if bicubic else 1)

    first = (pixels - preprocessing.crop) // 2
    numbers = torch.arange(first, first + preprocessing.crop, dtype=torch.float64)[:, None]
    centres = (numbers + 0.5) * scale + start
    sources = torch.arange(length, dtype=torch.float64)
    x = (sources + 0.5 - centres).abs() / stretch
    y = (1 - x).clamp(min=0)
    if bicubic:
        near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
        y = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    left, right = (centres - radius + 0.5).floor(), (centres + radius + 0.5).floor()
    inside = torch.where((sources >= left) & (sources < right), y, 0.0)
    return (inside / inside.sum(dim=1, keepdim=True)).float(), length - pixels


def _scale(picture: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Scale the first axis, then the second, each rounded to whole levels."""
    narrow = _levels(torch.einsum("al,lmc->amc", first, picture.float()))
    return _levels(torch.einsum("bm,amc->abc", second, narrow))


def _levels(exact: Tensor) -> Tensor:
    return (exact + 0.5).floor().clamp(0, 255)
