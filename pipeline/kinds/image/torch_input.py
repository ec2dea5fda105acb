"""Preprocessing of pictures of any size in PyTorch."""

from torch import Tensor
from torch.nn import functional

from .. import Fitted, Pixels
from .preprocess import LONGEST, colour, first

A_LITTLE = 1.000001  # as in `onnx_input.PREPROCESS`


def preprocess(picture: Tensor, preprocessing: Pixels | Fitted) -> Tensor:
    """Preprocess a picture as in `preprocess.py`: uint8 [height, width, 3] to [crop, crop, 3].

    The result differs from Pillow's as described in `onnx_input.graph`, except that the Lanczos
    filter is Pillow's. A picture on a GPU is scaled on the CPU, because PyTorch scales bytes only
    there.
    """
    fitted = preprocessing if isinstance(preprocessing, Fitted) else None
    fit = fitted.fit if fitted else ""
    crop, resize = preprocessing.crop, preprocessing.resize if fit else max(preprocessing[:2])
    if not fit:
        reach = LONGEST * min(picture.shape[:2])
        cuts = [max(0, length - reach) // 2 for length in picture.shape[:2]]
        down, across = (slice(c, n - c) for c, n in zip(cuts, picture.shape[:2], strict=True))
        picture = picture[down, across]
    size = picture.shape[:2]
    whole = {"": [min(size)] * 2, "squash": size, "border": [max(size)] * 2}[fit]
    factors = [resize / length for length in whole]
    scales = []
    for length, factor in zip(size, factors, strict=True):
        scaled = max(1 if fit else resize, round(length * factor))
        scale = scaled / length if fit else max(scaled / length, factor)
        scales.append(scale * A_LITTLE if length * scale < scaled else scale)
    nearest = preprocessing.interpolation == "nearest"
    resized = functional.interpolate(
        picture.cpu().permute(2, 0, 1)[None],
        scale_factor=scales,
        recompute_scale_factor=False,
        mode="nearest-exact" if nearest else preprocessing.interpolation,
        antialias=not nearest,
    )[0].permute(1, 2, 0)
    filled = resized
    if fitted and fit == "border":
        lacking = [max(crop - length, 0) for length in resized.shape[:2]]
        height, width = (max(crop, length) for length in resized.shape[:2])
        filled = resized.new_tensor(colour(fitted)).repeat(height, width, 1)
        top, left = (more // 2 for more in lacking)
        filled[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    top, left = (first(length, crop, bool(fit)) for length in filled.shape[:2])
    return filled[top : top + crop, left : left + crop].to(picture.device)
