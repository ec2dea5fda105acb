"""A picture of any size to a backbone's pixels, in PyTorch."""

import torch
from torch import Tensor

from .. import Fitted, Pixels
from .preprocess import REACH, colour


def preprocess(picture: Tensor, preprocessing: Pixels | Fitted) -> Tensor:
    """What `preprocess.py` does with a picture: uint8 [height, width, 3] to [crop, crop, 3].

    As `onnx_input.graph`, which says how it differs from Pillow.
    """
    rows, columns = picture.shape[:2]
    of_rows = of_columns = min(rows, columns)
    if isinstance(preprocessing, Fitted):
        longer, squash = max(rows, columns), preprocessing.fit == "squash"
        of_rows, of_columns = (rows, columns) if squash else (longer, longer)
    down, fewer_rows = axis_weights(rows, of_rows, preprocessing)
    across, fewer_columns = axis_weights(columns, of_columns, preprocessing)
    if fewer_rows > 0 and fewer_rows > 2 * fewer_columns:
        levels = _scale(picture, down, across)
    else:
        levels = _scale(picture.transpose(0, 1), across, down).transpose(0, 1)
    if isinstance(preprocessing, Fitted):  # what the picture does not reach takes nothing of it
        seen = down.any(dim=1)[:, None] & across.any(dim=1)
        levels = torch.where(seen[..., None], levels, torch.tensor(colour(preprocessing)).float())
    return levels.to(torch.uint8)


def axis_weights(length: int, whole: int, preprocessing: Pixels | Fitted) -> tuple[Tensor, int]:
    """What each pixel that is left of an axis is made of, and how many fewer there are.

    Args:
        length: pixels of the axis.
        whole: pixels that are scaled to `resize`: of the shorter axis, or as `Fitted` says.
        preprocessing: what is wanted.

    Returns:
        weights [crop, length], and the pixels by which scaling shortens the axis.
    """
    fitted, crop = isinstance(preprocessing, Fitted), preprocessing.crop
    resize = max(preprocessing.resize, crop)
    factor = resize / whole
    scaled = max(round(length * factor), 1 if fitted else resize)
    cut = max((scaled - REACH * resize) // 2, 0)
    end = length if fitted else min((scaled - cut) / factor, length)
    ends = torch.tensor([cut / factor, end])  # float32, as Pillow
    start, pixels = float(ends[0]), scaled - 2 * cut
    scale = float(ends[1] - ends[0]) / pixels
    stretch = max(scale, 1.0)

    first = (pixels - crop) // 2
    if fitted:
        first = round((pixels - crop) / 2) if pixels >= crop else -((crop - pixels) // 2)
    numbers = torch.arange(first, first + crop, dtype=torch.float64)[:, None]
    centres = (numbers + 0.5) * scale + start
    sources = torch.arange(length, dtype=torch.float64)
    if preprocessing.interpolation == "nearest":
        inside = (sources == centres.floor()).double()
    else:
        support, filter_ = FILTERS[preprocessing.interpolation]
        radius = support * stretch
        y = filter_((sources + 0.5 - centres).abs() / stretch)
        left, right = (centres - radius + 0.5).floor(), (centres + radius + 0.5).floor()
        inside = torch.where((sources >= left) & (sources < right), y, 0.0)
    inside = torch.where((numbers >= 0) & (numbers < pixels), inside, 0.0)
    total = inside.sum(dim=1, keepdim=True)
    return (inside / total.where(total != 0, 1.0)).float(), length - pixels


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)


# How far a filter reaches, and what it is at a distance.
FILTERS = {"bilinear": (1, _bilinear), "bicubic": (2, _bicubic), "lanczos": (3, _lanczos)}


def _scale(picture: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Scale the first axis, then the second, each rounded to whole levels."""
    narrow = _levels(torch.einsum("al,lmc->amc", first, picture.float()))
    return _levels(torch.einsum("bm,amc->abc", second, narrow))


def _levels(exact: Tensor) -> Tensor:
    return (exact + 0.5).floor().clamp(0, 255)
