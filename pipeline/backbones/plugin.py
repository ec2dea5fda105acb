"""Call and check a plugin's function that returns the user's own backbone.

The function takes no arguments and returns `(network, preprocessing)`. The network is a
`torch.nn.Module`, or an ONNX graph (a path or an `onnx.ModelProto`), which does not need PyTorch. A
graph maps uint8 `pictures` [n, crop, crop, 3] to float32 `features` [n, dimension]. It may have a
second output, `maps` [n, dimension, h, w], whose means are the features.
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import packages, plugins
from ..core.backbone import Backbone
from ..core.errors import ParamsError
from ..kinds import INTERPOLATIONS, Fitted, Pixels
from .family import TORCH, UNKNOWN, Family, Opened, no_pytorch

if TYPE_CHECKING:
    import onnx
    from torch import nn

TRIED = 3  # pictures in the test batch, to check that a graph accepts any batch size
MOST_PIXELS = 4096  # the longest side of a backbone's input


def content(backbone: Backbone) -> str:
    """Return what the network depends on: the code in `plugins/`, pinned versions and libraries.

    Raises:
        ParamsError: the code does not exist, or its package is not pinned.
    """
    check(backbone)
    return " ".join([f"plugins {plugins.digest()}", *map(packages.with_version, TORCH)])


def check(backbone: Backbone) -> None:
    """Raise `ParamsError` if the code does not exist, or its package is not pinned."""
    plugins.check(str(backbone), asked_by(backbone))


def asked_by(backbone: Backbone) -> str:
    """Return the beginning of messages about the backbone."""
    return f"backbone {backbone}"


def returned(backbone: Backbone) -> tuple[Any, Pixels]:
    """Return the network, an `onnx.ModelProto` or a `torch.nn.Module`, and its preprocessing.

    Raises:
        MissingSetError: the function needs PyTorch, which is not installed.
        ParamsError: the function does not exist, raises an error, or returns something else.
    """
    function = plugins.load(str(backbone), asked_by(backbone))
    with plugins.blamed(asked_by(backbone)):
        found = function()
    if not isinstance(found, tuple) or len(found) != 2:
        raise wrong(backbone, f"returned {found!r:.60}; it should return (network, preprocessing)")
    network, given = found
    preprocessing = preprocessing_of(backbone, given)
    if hasattr(network, "state_dict"):
        return network, preprocessing
    return graph(backbone, network, preprocessing), preprocessing


def opened(backbone: Backbone) -> Opened | None:
    """Return the function's graph; None if it returns a `torch.nn.Module`."""
    network, preprocessing = returned(backbone)
    return None if hasattr(network, "state_dict") else Opened(network, preprocessing, {})


def in_pytorch(backbone: Backbone) -> "tuple[nn.Module, Pixels]":
    """Return the function's module, which maps normalised pictures [n, 3, side, side] to features.

    Raises:
        ParamsError: the function returns a graph, or the requested weights are not its own.
    """
    if backbone.weights != "pretrained":
        raise wrong(
            backbone,
            "comes with its own weights; to use random ones, as from_scratch does, choose another"
            " backbone",
        )
    network, preprocessing = returned(backbone)
    if not hasattr(network, "state_dict"):
        no_pytorch(backbone)
    return network, preprocessing


def preprocessing_of(backbone: Backbone, given: Any) -> Pixels:
    """Check the preprocessing that the function returned, `Pixels` or a tuple of five values."""
    try:
        resize, crop, interpolation, means, stds = given
        mean, std = [float(one) for one in means], [float(one) for one in stds]
    except (TypeError, ValueError):
        raise wrong(
            backbone,
            f"has the preprocessing {given!r:.60}; it should have (resize, crop, interpolation,"
            " mean, std)",
        ) from None
    for name, side in (("resize", resize), ("crop", crop)):
        if not isinstance(side, int) or not 1 <= side <= MOST_PIXELS:
            raise wrong(
                backbone,
                f"has {name} {side!r:.40}; it should be a whole number from 1 to {MOST_PIXELS}",
            )
    if interpolation not in INTERPOLATIONS:
        known = f"{', '.join(INTERPOLATIONS[:-1])} or {INTERPOLATIONS[-1]}"
        raise wrong(backbone, f"has interpolation {interpolation!r:.40}; use {known}")
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise wrong(backbone, "needs a mean, and a std above 0, for each of the three channels")
    return Pixels(
        resize, crop, interpolation, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    )


def graph(backbone: Backbone, network: Any, preprocessing: Pixels | Fitted) -> "onnx.ModelProto":
    """Check the graph, run it once on black pictures, and set the shapes of its outputs."""
    import onnx
    import onnxruntime

    if isinstance(network, str | os.PathLike):
        with plugins.blamed(asked_by(backbone)):
            network = onnx.load(network)
    if not isinstance(network, onnx.ModelProto):
        raise wrong(
            backbone,
            f"returned the network {network!r:.60}; it should be a path to an ONNX file, an"
            " onnx.ModelProto or a torch.nn.Module",
        )
    model = onnx.ModelProto()
    model.CopyFrom(network)
    inputs = [one.name for one in model.graph.input]
    outputs = [one.name for one in model.graph.output]
    if inputs != ["pictures"] or outputs not in (["features"], ["features", "maps"]):
        raise wrong(
            backbone,
            f"is a graph with the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)};"
            " its input should be pictures, and its outputs features, or features and maps",
        )
    side = preprocessing.crop
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the exception has the message
    with plugins.blamed(asked_by(backbone)):
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        black = np.zeros((TRIED, side, side, 3), np.uint8)
        answers = session.run(outputs, {"pictures": black})
    features = answers[0]
    fits = features.ndim == 2 and len(features) == TRIED
    for maps in answers[1:]:
        fits = fits and maps.ndim == 4 and maps.shape[:2] == features.shape
    if not fits or any(answer.dtype != np.float32 for answer in answers):
        shown = " and ".join(f"{answer.dtype} {list(answer.shape)}" for answer in answers)
        raise wrong(
            backbone,
            f"returns {shown} for {TRIED} pictures; it should return float32 features [n,"
            " dimension] and, optionally, maps [n, dimension, h, w]",
        )
    if not all(np.isfinite(answer).all() for answer in answers):
        raise wrong(backbone, "returns values that are not finite for black pictures")
    del model.graph.output[:]  # their shapes may be unknown
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["n", *answer.shape[1:]])
        for output, answer in zip(outputs, answers, strict=True)
    )
    return model


def wrong(backbone: Backbone, words: str) -> ParamsError:
    """Return the error that describes what is wrong with a backbone."""
    return ParamsError(f"{asked_by(backbone)} {words}")


FAMILY = Family(
    opened,
    licence=lambda _: UNKNOWN,
    content=content,
    check=check,
    is_graph=lambda backbone: opened(backbone) is not None,
    network=in_pytorch,
)
