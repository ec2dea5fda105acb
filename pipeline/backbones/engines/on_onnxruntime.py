"""ONNX Runtime on the CPU: the default engine."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...kinds import Kind
from ..exports import blocks_of, preprocessing_of
from .engine import Engine
from .processor import arithmetic, computes_with_integers


def on_export(file: Path, kind: Kind) -> Engine:
    """Open an export, which `exports.exported` wrote, in ONNX Runtime.

    Each call uses one thread, so that several calling threads share the cores without waiting.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # the exception has the message
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    preprocessing, blocks = preprocessing_of(notes), blocks_of(notes)
    outputs = ["features", *(block.name for block in blocks)]
    wanted, dimension = session.get_inputs()[0].name, session.get_outputs()[0].shape[1]

    def run(inputs: NDArray[Any]) -> NDArray[np.float32]:
        found: list[NDArray[np.float32]] = session.run(outputs, {wanted: inputs})
        return np.concatenate(found, axis=1) if blocks else found[0]

    return Engine(
        f"onnxruntime {onnxruntime.__version__} on the CPU",
        kind,
        kind.inputs(preprocessing, "cpu"),
        run,
        preprocessing,
        dimension if isinstance(dimension, int) else 0,
        f"{notes['fingerprint']} onnxruntime {onnxruntime.__version__} cpu float32",
        arithmetic(computes_with_integers(file)),
        blocks=blocks,
    )
