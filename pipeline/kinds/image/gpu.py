"""Views on a PyTorch device: the CPU decodes and scales pictures, the device warps them.

Pictures are decoded and scaled by `preprocess.base`, as in `views`. Rotation, scaling and flips
agree with OpenCV up to one grey level; the original view has the same pixels as on the CPU.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...core.errors import NO_MEMORY, DeviceError
from .. import Asked, Fitted, Pixels
from . import preprocess
from .reading import PLAIN, Reading
from .views import View

GPU_VIEW_CODE = 2  # raise when this module gives other pixels


class ViewMaker:
    """Makes views on a device for a backbone's preprocessing; thread-safe."""

    made_by = f" gpu views {GPU_VIEW_CODE}"

    def __init__(
        self, preprocessing: Pixels | Fitted, reading: Reading = PLAIN, device: str = "cuda"
    ) -> None:
        """Store the backbone's preprocessing, the read settings and the device."""
        self.preprocessing, self.reading, self.device = preprocessing, reading, device

    def __call__(self, asked: Asked) -> Tensor:
        """Make the requested views, cropped, uint8 [views, side, side, 3] on the device.

        Raises:
            DeviceError: GPU memory ran out.
            RefusedError: as in `decode.decode`.
        """
        side, fitted, seen = self.preprocessing.crop, isinstance(self.preprocessing, Fitted), []
        try:
            with torch.inference_mode():
                for data, wanted in asked:
                    base = preprocess.base(data, self.preprocessing, self.reading)
                    pixels = torch.from_numpy(base.copy()).to(self.device)
                    seen.append(warp(pixels, [View(*view) for view in wanted], side, fitted))
                return torch.cat(seen)
        except torch.OutOfMemoryError:
            raise DeviceError(NO_MEMORY) from None


def warp(base: Tensor, wanted: list[View], side: int, fitted: bool = False) -> Tensor:
    """Make views of a picture, as in `views`, and return their centre crops.

    Args:
        base: uint8 [height, width, 3]; height and width are at least `side`.
        fitted: as in `preprocess.crop`.

    Returns:
        uint8 [views, side, side, 3], on the device of `base`.
    """
    size = np.array(base.shape[1::-1])  # width and height
    middle = (size - 1) / 2
    left, top = (preprocess.first(int(length), side, fitted) for length in size)
    x, y = (
        torch.arange(side, device=base.device) + float(first - half)
        for first, half in zip((left, top), middle, strict=True)
    )
    # The source of each pixel: inverse flip, rotation and scaling about the centre.
    back = torch.from_numpy(_back(wanted) / middle[:, None]).float().to(base.device)
    to_x, to_y = back[:, None, None].unbind(-1)  # [views, 1, 1, 2] each
    places = x[:, None] * to_x + y[:, None, None] * to_y
    picture = base.permute(2, 0, 1).float().expand(len(wanted), -1, -1, -1)
    seen = functional.grid_sample(
        picture, places, mode="bilinear", padding_mode="reflection", align_corners=True
    )
    return (seen + 0.5).floor().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _back(wanted: list[View]) -> NDArray[np.float64]:
    """Return matrices [views, 2, 2] from offsets (x, y) in a view to offsets in the picture."""
    angle, scale, hflip, vflip = np.array(wanted, dtype=np.float64).T
    cos, sin = np.cos(np.deg2rad(angle)) / scale, np.sin(np.deg2rad(angle)) / scale
    x, y = np.where(hflip, -1, 1), np.where(vflip, -1, 1)
    return np.stack([cos * x, -sin * y, sin * x, cos * y], axis=1).reshape(-1, 2, 2)
