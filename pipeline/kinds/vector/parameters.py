"""The section `augment` of `params.yaml`, for vectors."""

from typing import Annotated

from pydantic import AfterValidator

from ...core.params import Augmentation, setting


def _none(views: int) -> int:
    if views:
        raise ValueError(
            "should be 0: vectors are not augmented, because no change to another model's"
            " features is known to preserve their meaning"
        )
    return views


class Augment(Augmentation):
    """Vectors are not augmented."""

    views: Annotated[int, AfterValidator(_none)] = setting(0, "always 0")
