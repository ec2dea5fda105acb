"""Networks of timm: from its hub, another that it knows, or a folder laid out as there."""

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
    """A digest of the network's folder, if it is one.

    Raises:
        WeightsError: it is not there.
    """
    folder = backbone.own_path
    return given.digest(folder, f"backbone {backbone}") if folder else ""


def licence(backbone: Backbone) -> str:
    """The licence that timm states for each set of weights."""
    if backbone.name.startswith(HUB) or backbone.own_path:
        return UNKNOWN
    import timm  # which takes a while

    return getattr(timm.get_pretrained_cfg(backbone.name), "license", None) or UNKNOWN


def check(backbone: Backbone) -> None:
    """Check that timm knows the network, or that its folder is there.

    Raises:
        ParamsError: timm does not.
        WeightsError: the folder has no description.
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
    """A timm model without its classifier; its pretrained configuration is its preprocessing.

    Raises:
        ParamsError: there is none, or it was trained on pictures that are prepared as none here
            are.
        WeightsError: weights or description cannot be had.
    """
    import timm

    from . import own_weights

    check(backbone)
    folder, pretrained = backbone.own_path, backbone.weights == "pretrained"
    source = f"local-dir:{folder}" if folder else backbone.name
    try:
        model = timm.create_model(source, pretrained=pretrained and not folder, num_classes=0)
    except Exception as error:  # a hub's client has classes of its own
        reason = " ".join(str(error).split())[:160]
        if folder:
            raise WeightsError(
                f"{backbone} is not a folder as timm's hub has them, with a config.json: {reason}"
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
    """The file of weights in a folder as on timm's hub.

    Raises:
        WeightsError: there is none.
    """
    names = ("model.safetensors", "pytorch_model.bin")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise WeightsError(f"{folder} has no weights: neither {' nor '.join(names)} is in it")


def preprocessing(backbone: Backbone, model: "nn.Module") -> Pixels | Fitted:
    """The preprocessing that a timm network was trained for, by its configuration.

    Raises:
        ParamsError: it is none that `preprocess.py` does: another would give poor features
            unnoticed.
    """
    from timm.data import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(model)
    config["input_size"] = tuple(config["input_size"])  # a list if it was JSON
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
                " Headstart does not do; take another backbone"
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
