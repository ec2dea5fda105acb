"""A heat map over a picture.

The module uses only NumPy and Pillow, so that explanations can be shown without importing torch.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# Nine colours of cividis, from no heat to maximum heat. It looks the same with every kind of colour
# vision, and lighter is always more (Nuñez et al., 2018).
CIVIDIS = np.array(
    [
        (0, 34, 78),
        (26, 56, 111),
        (67, 78, 108),
        (97, 101, 111),
        (125, 124, 120),
        (155, 148, 118),
        (188, 174, 108),
        (222, 201, 88),
        (254, 232, 56),
    ],
    dtype=np.float32,
)


def overlay(picture: Bytes, heat: Floats) -> Bytes:
    """Blend the picture in grey with the heat map in colour, in equal parts.

    Args:
        picture: uint8 [height, width, 3], as the backbone saw it.
        heat: [h, w] from 0 to 1, of any size; it is scaled smoothly to the picture's size.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = picture.shape[:2]
    smooth = Image.fromarray(heat.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    level = np.clip(np.asarray(smooth), 0, 1)
    steps = np.linspace(0, 1, len(CIVIDIS))
    colours = np.stack([np.interp(level, steps, channel) for channel in CIVIDIS.T], axis=-1)
    grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    mixed: Bytes = np.round((grey + colours) / 2).astype(np.uint8)
    return mixed
