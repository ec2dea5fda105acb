"""OpenVINO on the CPU, with the same export; in bfloat16 it is twice as fast as ONNX Runtime."""

import os
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DeviceError, ParamsError
from ...core.params import ExtractParams
from .engine import Engine


def on_openvino(file: Path, sure: Engine, settings: ExtractParams) -> Engine:
    """Open an export in OpenVINO, which runs one call per core at once, each on one thread.

    Args:
        sure: ONNX Runtime's engine for the same file, which shows that the file is not damaged.
        settings: the precision, and the backbone's name for messages.

    Raises:
        DeviceError: the processor has no bfloat16.
        ParamsError: OpenVINO cannot run the backbone.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # no telemetry
    import openvino

    core, cores, precision = openvino.Core(), os.cpu_count() or 1, settings.precision
    outputs = ["features", *(block.name for block in sure.blocks)]
    made_by = f"openvino {version('openvino')} cpu {precision}"
    if precision == "bfloat16":
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DeviceError(
                "this processor does not support bfloat16; set extract.precision to float32"
            )
        # The bfloat16 instructions, and therefore the last bits, differ between processors.
        made_by += f" {core.get_property('CPU', 'FULL_DEVICE_NAME')}"
    try:
        model = core.read_model(file)
        for result in model.results:  # each call would copy the maps
            if not result.output(0).names & set(outputs):
                model.remove_result(result)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                "NUM_STREAMS": cores,
                "INFERENCE_NUM_THREADS": cores,
                "ENABLE_CPU_PINNING": False,  # the callers decode, and should not be pinned
            },
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ParamsError(
            f"OpenVINO cannot run {settings.backbone}: {reason}; set extract.precision to float32"
            " and extract.engine to auto"
        ) from None

    def run(inputs: NDArray[Any]) -> NDArray[np.float32]:
        found = compiled.infer_new_request({0: inputs})
        if sure.blocks:
            return np.concatenate([found[name] for name in outputs], axis=1)
        features: NDArray[np.float32] = found[0]
        return features

    fingerprint = model.get_rt_info(["framework", "fingerprint"]).astype(str)
    return replace(
        sure,
        name=f"OpenVINO {version('openvino')} on the CPU in {precision}",
        run=run,
        fingerprint=f"{fingerprint} {made_by}",
    )
