"""The parameters of images in the sections `ingest` and `augment` of `params.yaml`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ...core.params import Augmentation, IngestParams, Share, setting

Channel = Annotated[int, Field(ge=1, le=10_000)]


class Ingest(IngestParams):
    """The source of the examples, the task and the split."""

    range: (
        Literal["file", "type"]
        | Annotated[
            list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2, max_length=2)
        ]
        | None
    ) = setting(
        None,
        "pixel values that become black and white in pictures with more than 8 bits: two numbers,"
        " `file` (minimum and maximum of each file) or `type` (the limits of the data type, 0 and 1"
        " for floats). With `null`, `ingest` divides 16-bit values by 256 and refuses floats"
        " (docs/pictures.md)",
    )
    channels: Channel | Annotated[list[Channel], Field(min_length=3, max_length=3)] | None = (
        setting(
            None,
            "three channels to use as red, green and blue, or one channel for grey pictures;"
            " channels are counted from 1. `null` keeps the colours of the file (docs/pictures.md)",
        )
    )

    @model_validator(mode="after")
    def _from_black_to_white(self) -> "Ingest":
        if isinstance(self.range, list) and not self.range[0] < self.range[1]:
            raise ValueError(
                f"range is {self.range}; the first number becomes black and should be the smaller"
            )
        return self


class Augment(Augmentation):
    """Random rotation, scaling and flips of the training pictures."""

    ingest: ClassVar[type[IngestParams]] = Ingest

    rotate: Annotated[float, Field(ge=0, le=180)] = setting(
        15, "rotation in degrees, drawn from -rotate to +rotate"
    )
    scale: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.1, "scale factor, drawn from 1 - scale to 1 + scale"
    )
    hflip: Share = setting(0.5, "probability of a left-right flip")
    vflip: Share = setting(0.0, "probability of an upside-down flip")
