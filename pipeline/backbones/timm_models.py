"""Networks of timm: built into timm, from its hub, or from a folder laid out as on the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.backbone import HUB, Backbone
from ..core.errors import ParamsError, WeightsError
from ..core.paths import WEIGHTS
from ..kinds import FITS, INTERPOLATIONS, Fitted, Pixels
from . import given
from .family import OFFLINE, TORCH, UNKNOWN, Family

if TYPE_CHECKING:
    from torch import nn


def content(backbone: Backbone) -> str:
    """Return a digest of the network's folder, if the backbone is a folder.

    Raises:
        WeightsError: the folder does not exist.
    """
    folder = backbone.own_path
    return given.digest(folder, f"backbone {backbone}") if folder else ""


def licence(backbone: Backbone) -> str:
    """Return the licence that timm states for these weights."""
    if backbone.name.startswith(HUB) or backbone.own_path:
        return UNKNOWN
    import timm  # slow to import

    return getattr(timm.get_pretrained_cfg(backbone.name), "license", None) or UNKNOWN


def check(backbone: Backbone) -> None:
    """Check that timm knows the network, or that its folder has a `config.json`.

    Raises:
        ParamsError: timm does not know the network.
        WeightsError: the folder has no `config.json`.
    """
    if folder := backbone.own_path:
        given.digest(folder / "config.json", f"backbone {backbone}")
        return
    import timm

    name = backbone.name
    if not name.startswith(HUB) and not timm.is_model(name.partition(".")[0]):
        raise ParamsError(
            f"backbone {backbone}: timm has no model {name!r}; see timm.list_models()"
        )


def network(backbone: Backbone) -> "tuple[nn.Module, Pixels | Fitted]":
    """Return a timm model without its classifier, and the preprocessing from its configuration.

    Raises:
        ParamsError: the model does not exist, or Headstart does not support its preprocessing.
        WeightsError: the weights or the configuration cannot be loaded.
    """
    import timm

    from . import own_weights

    check(backbone)
    folder, pretrained = backbone.own_path, backbone.weights == "pretrained"
    source = f"local-dir:{folder}" if folder else backbone.name
    try:
        model = timm.create_model(source, pretrained=pretrained and not folder, num_classes=0)
    except Exception as error:  # the hub's client raises its own classes
        reason = " ".join(str(error).split())[:160]
        if folder:
            raise WeightsError(
                f"{backbone} is not a folder like those on timm's hub, which have a config.json:"
                f" {reason}"
            ) from None
        described = " and its description" if backbone.name.startswith(HUB) else ""
        raise WeightsError(
            f"the weights of {backbone}{described} cannot be downloaded ({reason}); {OFFLINE}, or"
            f" put a file of weights into {WEIGHTS} (extract.weights)"
        ) from None
    if folder and pretrained:
        own_weights.put_into(model, backbone, _weights_in(folder))
    return model, preprocessing(backbone, model)


def _weights_in(folder: Path) -> Path:
    """Return the weights file in a folder laid out as on timm's hub.

    Raises:
        WeightsError: the folder has no weights file.
    """
    names = ("model.safetensors", "pytorch_model.bin")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise WeightsError(f"{folder} has no weights: neither {' nor '.join(names)} is in it")


def preprocessing(backbone: Backbone, model: "nn.Module") -> Pixels | Fitted:
    """Return the preprocessing that a timm network was trained with, from its configuration.

    Raises:
        ParamsError: Headstart does not support the preprocessing; a different one would silently
            make the features worse.
    """
    from timm.data import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(model)
    config["input_size"] = tuple(config["input_size"])  # a list if read from JSON
    side = config["input_size"][-1]
    done = {
        "crop_mode": ("center", *FITS),
        "interpolation": INTERPOLATIONS,
        "input_size": ((3, side, side),),
    }
    for knob, known in done.items():
        if config[knob] not in known:
            raise ParamsError(
                f"{backbone} was trained on pictures prepared with {knob} {config[knob]}, which"
                " Headstart does not support; use another backbone"
            )
    resize = int(side / config["crop_pct"])
    prepared = Pixels(
        resize, side, config["interpolation"], tuple(config["mean"]), tuple(config["std"])
    )
    mode = config["crop_mode"]
    return prepared if mode == "center" else Fitted(*prepared, mode)


FAMILY = Family(
    opened=lambda _: None,
    licence=licence,
    made_by=lambda _: TORCH,
    content=content,
    check=check,
    network=network,
)
