"""The families of backbones, by their names in `core/backbone.py`."""

from typing import NoReturn

from ..core.backbone import Backbone
from ..core.errors import ParamsError
from . import (
    encoder,
    histogram,
    identity,
    lite,
    minilm,
    onnx_file,
    plugin,
    spectra,
    speech,
    terms,
    timm_models,
    torchvision_models,
    whisper,
)
from .family import Family


def _one_by_one(backbone: Backbone) -> NoReturn:
    raise ParamsError(f"backbone {backbone} joins several networks; open each of them by itself")


FAMILIES = {
    "lite": lite.FAMILY,
    "torchvision": torchvision_models.FAMILY,
    "timm": timm_models.FAMILY,
    "onnx": onnx_file.FAMILY,
    "identity": identity.FAMILY,
    "minilm": minilm.FAMILY,
    "terms": terms.FAMILY,
    "speech": speech.FAMILY,
    "whisper": whisper.FAMILY,
    "spectra": spectra.FAMILY,
    "histogram": histogram.FAMILY,
    "transformers": encoder.FAMILY,
    "python": plugin.FAMILY,
    "joined": Family(_one_by_one, licence=_one_by_one, made_by=_one_by_one, network=_one_by_one),
}
