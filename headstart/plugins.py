"""The names that code in `plugins/` imports, which are the same in a clone and in the wheel.

    from headstart.plugins import Preprocessing

No output depends on the packages that define these names. docs/plugins.md has examples.
"""

from pipeline.core.errors import DataError, HeadstartError, ParamsError, RefusedError
from pipeline.core.params import Augmentation, Share, setting
from pipeline.core.paths import PICTURES
from pipeline.core.progress import Progress
from pipeline.examples.drawn import units
from pipeline.examples.files import read
from pipeline.kinds import (
    IR_VERSION,
    OPSET,
    Asked,
    Example,
    Fitted,
    Input,
    Inputs,
    Kind,
    Maker,
    Pixels,
    Plain,
    Preprocessing,
    Shown,
    Spectrum,
    Terms,
    Tokens,
    Vector,
    View,
    Waveform,
)

__all__ = [
    "IR_VERSION",
    "OPSET",
    "PICTURES",
    "Asked",
    "Augmentation",
    "DataError",
    "Example",
    "Fitted",
    "HeadstartError",
    "Input",
    "Inputs",
    "Kind",
    "Maker",
    "ParamsError",
    "Pixels",
    "Plain",
    "Preprocessing",
    "Progress",
    "RefusedError",
    "Share",
    "Shown",
    "Spectrum",
    "Terms",
    "Tokens",
    "Vector",
    "View",
    "Waveform",
    "read",
    "setting",
    "units",
]
