"""The section `augment` of `params.yaml`, for sounds."""

from typing import Annotated

from pydantic import Field

from ...core.params import Augmentation, Share, setting


class Augment(Augmentation):
    """Random changes to the training sounds."""

    shift: Annotated[float, Field(ge=0, le=10)] = setting(
        0.2, "maximum length of the silence added before or after the sound, in seconds"
    )
    gain: Annotated[float, Field(ge=0, le=40)] = setting(
        6, "gain in decibels, drawn from -gain to +gain"
    )
    noise: Share = setting(0.5, "probability that white noise is added")
    snr: Annotated[float, Field(ge=0, le=60)] = setting(
        20, "signal-to-noise ratio of the white noise in decibels, drawn from snr to snr + 20"
    )
    speed: Annotated[float, Field(ge=0, le=0.5)] = setting(
        0.05, "speed factor, drawn from 1 - speed to 1 + speed; the pitch changes too"
    )
