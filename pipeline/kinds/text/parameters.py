"""The section `augment` of `params.yaml`, for texts."""

from typing import Annotated

from pydantic import AfterValidator, Field

from ...core.params import Augmentation, setting


def _none(views: int) -> int:
    if views:
        raise ValueError(
            "should be 0: texts are not augmented, because different words may change the meaning"
            " (docs/text.md)"
        )
    return views


class Augment(Augmentation):
    """Texts are not augmented, because any change to a text can change its meaning."""

    views: Annotated[int, Field(ge=0), AfterValidator(_none)] = setting(0, "always 0")
