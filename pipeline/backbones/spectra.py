"""Baselines for sounds, without pretraining: the mean and variation of a spectrum.

`log_mel`: mean and standard deviation over the frames of each of 64 mel bands, in decibels. `mfcc`:
mean and standard deviation of 40 mel-frequency cepstral coefficients (Davis and Mermelstein, 1980),
an orthonormal cosine transform (DCT-II) of 128 mel bands. `kinds/audio/` computes the spectra.
Rate, frames and bands are librosa's defaults, so the coefficients equal `librosa.feature.mfcc` with
`n_mfcc=40`, except that librosa limits them to 80 dB below the loudest.
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
COEFFICIENTS = 40  # better than 20 on the validation examples of benchmarks/audio.md
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
    """Return the graph, from float32 `spectrum` [n, bands, frames] to `features` [n, dimension]."""
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
            # With a convolution, a sound's result does not depend on the others in its batch.
            rows=f"rows = {'Conv (spectrum, cosines)' if cepstral else 'Identity (spectrum)'}",
        )
    )
    if cepstral:
        weights = cosines(COEFFICIENTS, bands)[:, :, None]
        model.graph.initializer.append(numpy_helper.from_array(weights, "cosines"))
    return model


def cosines(coefficients: int, bands: int) -> NDArray[np.float32]:
    """Return the first rows [coefficients, bands] of the orthonormal DCT-II."""
    numbers, places = np.arange(coefficients)[:, None], np.arange(bands) + 0.5
    rows = np.sqrt(2 / bands) * np.cos(np.pi / bands * numbers * places)
    rows[0] /= np.sqrt(2)
    matrix: NDArray[np.float32] = rows.astype(np.float32)
    return matrix


# There are no weights, so only the licence of this code applies.
FAMILY = Family(opened, licence=lambda _: "none (no weights)")
