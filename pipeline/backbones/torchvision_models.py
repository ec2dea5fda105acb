"""Classifiers of torchvision, with the weights from its hub."""

from importlib.metadata import metadata
from typing import TYPE_CHECKING

from ..core.backbone import Backbone
from ..core.errors import ParamsError, WeightsError
from ..kinds import Pixels
from .family import OFFLINE, TORCH, Family

if TYPE_CHECKING:
    from torch import nn


def check(backbone: Backbone) -> None:
    """Raise `ParamsError` if torchvision has no such classifier."""
    import torchvision

    try:
        _ = torchvision.models.get_model_weights(backbone.name)["DEFAULT"]
    except (ValueError, KeyError):
        raise ParamsError(
            f"backbone {backbone}: torchvision has no classifier {backbone.name!r};"
            " see torchvision.models.list_models()"
        ) from None


def network(backbone: Backbone) -> "tuple[nn.Module, Pixels]":
    """Return a torchvision classifier without its last layers, and the weights' preprocessing.

    Raises:
        ParamsError: the classifier does not exist, or its last layers are not known.
        WeightsError: the weights cannot be downloaded.
    """
    import torchvision
    from torch import nn

    check(backbone)
    weights = torchvision.models.get_model_weights(backbone.name)["DEFAULT"]
    pretrained = weights if backbone.weights == "pretrained" else None
    try:
        model = torchvision.models.get_model(backbone.name, weights=pretrained)
    except OSError as error:
        raise WeightsError(
            f"the weights of {backbone} cannot be downloaded ({error}); {OFFLINE}"
        ) from None
    # torchvision builds Inception and GoogLeNet differently with and without weights. The two are
    # made the same here, so that weights can be loaded into both.
    for part, always in {"transform_input": True, "aux_logits": False}.items():
        if hasattr(model, part):
            setattr(model, part, always)
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, auxiliary):
            setattr(model, auxiliary, None)
    for last in ("fc", "classifier", "heads", "head"):
        if isinstance(getattr(model, last, None), nn.Module):
            setattr(model, last, nn.Identity())
            break
    else:
        raise ParamsError(
            f"the last layer of backbone {backbone} is not known, so it cannot be removed"
        )
    preset = weights.transforms()
    return model, Pixels(
        preset.resize_size[0],
        preset.crop_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )


FAMILY = Family(
    opened=lambda _: None,
    licence=lambda _: f"{metadata('torchvision')['License']} (the code)",
    made_by=lambda _: TORCH,
    check=check,
    network=network,
)
