"""The section `augment` of `params.yaml`, for images."""

from typing import Annotated

from pydantic import Field

from ...core.params import Augmentation, Share, told


class Augment(Augmentation):
    """The ranges from which each training view's rotation, scale and flips are drawn."""

    rotate: Annotated[float, Field(ge=0, le=180)] = told(
        15, "degrees, drawn from -rotate to +rotate"
    )
    scale: Annotated[float, Field(ge=0, lt=1)] = told(
        0.1, "factor, drawn from 1 - scale to 1 + scale"
    )
    hflip: Share = told(0.5, "probability of a left-right flip")
    vflip: Share = told(0.0, "probability of an upside-down flip")
