"""Floors for sounds, without pretraining: what a spectrum is like on average, and how it varies.

`log_mel`: mean and standard deviation over the frames of each of 64 mel bands, in decibels.
`mfcc`: those of 40 mel-frequency cepstral coefficients (Davis and Mermelstein, 1980), which are a
cosine transform (DCT-II, orthonormal) of 128 mel bands. The spectra are made by `kinds/audio/`;
rate, frames and bands are librosa's defaults, so that the numbers are those of
`librosa.feature.mfcc` with `n_mfcc=40`, without its limit of 80 dB below the loudest.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.backbone import Backbone
from ..kinds import IR_VERSION, OPSET, Spectrum
from .family import Family, Opened

if TYPE_CHECKING:
    import onnx

RATE, FRAME, HOP = 22_050, 2048, 512
BANDS = {"mfcc": 128, "log_mel": 64}
COEFFICIENTS = 40  # chosen on validation examples of benchmarks/audio.md, beside 20
WINDOW = 20 * RATE  # a longer sound is cut into several inputs

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
{name} (float[n, {bands}, frames] spectrum) => (float[n, {dimension}] features)
<int64[1] over = {{2}}>
{{
    {rows}
    means = ReduceMean <keepdims = 1> (rows, over)
    apart = Sub (rows, means)
    squares = Mul (apart, apart)
    variances = ReduceMean <keepdims = 0> (squares, over)
    deviations = Sqrt (variances)
    averages = Squeeze (means, over)
    features = Concat <axis = 1> (averages, deviations)
}}
"""


def opened(backbone: Backbone) -> Opened:
    """The graph: `spectrum` float32 [n, bands, frames] to `features` [n, dimension]."""
    name = backbone.name
    preprocessing = Spectrum(RATE, WINDOW, FRAME, FRAME, HOP, BANDS[name])
    return Opened(_graph(name, BANDS[name]), preprocessing, {})


def _graph(name: str, bands: int) -> "onnx.ModelProto":
    from onnx import numpy_helper, parser

    cepstral = name == "mfcc"
    model = parser.parse_model(
        GRAPH.format(
            ir_version=IR_VERSION,
            opset=OPSET,
            name=name,
            bands=bands,
            dimension=2 * (COEFFICIENTS if cepstral else bands),
            # As a convolution, each sound is multiplied by itself, whatever is beside it.
            rows=f"rows = {'Conv (spectrum, cosines)' if cepstral else 'Identity (spectrum)'}",
        )
    )
    if cepstral:
        weights = cosines(COEFFICIENTS, bands)[:, :, None]
        model.graph.initializer.append(numpy_helper.from_array(weights, "cosines"))
    return model


def cosines(coefficients: int, bands: int) -> NDArray[np.float32]:
    """The first rows [coefficients, bands] of the orthonormal DCT-II."""
    numbers, places = np.arange(coefficients)[:, None], np.arange(bands) + 0.5
    rows = np.sqrt(2 / bands) * np.cos(np.pi / bands * numbers * places)
    rows[0] /= np.sqrt(2)
    matrix: NDArray[np.float32] = rows.astype(np.float32)
    return matrix


# The licence is that of this code: nothing else is in it.
FAMILY = Family(opened, licence=lambda _: "none (no weights)")
