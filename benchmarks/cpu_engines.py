"""What else could run the backbone on a CPU: rates, how far features move, what it costs.

All engines get the same views and as many threads as there are cores. Accuracy is that of a
logistic regression on the features of the set's `train`, on its `val`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_file
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime import quantization
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import CORES, in_turns, table
from pipeline.backbones import catalogue
from pipeline.backbones.onnx_export import export
from pipeline.kinds import Preprocessing
from pipeline.kinds.image import preprocess

BATCH = 32
NAME = "efficientnet_lite0"

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]
Engine = Callable[[Pixels], Features]


def read(folder: Path, size: Preprocessing) -> tuple[Pixels, list[str]]:
    files = sorted(folder.rglob("*.jpg"))
    seen = [preprocess.crop(preprocess.base(file.read_bytes(), size), size.crop) for file in files]
    return np.stack(seen), [file.parent.name for file in files]


def batches(seen: Pixels) -> list[Pixels]:
    return [seen[i : i + BATCH] for i in range(0, len(seen), BATCH)]


def onnx(file: Path, threads: int, callers: int) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(seen: Pixels) -> Features:
        with ThreadPoolExecutor(callers) as pool:
            parts = pool.map(lambda b: session.run(["features"], {"pictures": b})[0], batches(seen))
            return np.concatenate(list(parts))

    return run


def int8(file: Path, sample: Pixels, folder: Path) -> Path:
    """ONNX Runtime's static quantization, calibrated on `sample`."""

    left = iter([{"pictures": batch} for batch in batches(sample)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Pixels] | None:
            return next(left, None)

    prepared, quantized = folder / "prepared.onnx", folder / "int8.onnx"
    quantization.quant_pre_process(file, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        quantized,
        Reader(),
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return quantized


def openvino(file: Path, settings: dict[str, str]) -> Engine:
    from openvino import AsyncInferQueue, Core

    compiled = Core().compile_model(file, "CPU", settings)

    def run(seen: Pixels) -> Features:
        parts: dict[int, Features] = {}

        def keep(request: Any, number: int) -> None:
            parts[number] = request.get_output_tensor(0).data.copy()

        queue = AsyncInferQueue(compiled)
        queue.set_callback(keep)
        for number, batch in enumerate(batches(seen)):
            queue.start_async({"pictures": batch}, number)
        queue.wait_all()
        return np.concatenate([parts[number] for number in sorted(parts)])

    return run


def pytorch(module: torch.nn.Module, precision: torch.dtype) -> Engine:
    module = module.to(memory_format=torch.channels_last)

    def run(seen: Pixels) -> Features:
        with torch.inference_mode(), torch.autocast("cpu", precision, precision != torch.float32):
            return np.concatenate([module(torch.from_numpy(b)).numpy() for b in batches(seen)])

    return run


def accuracy(train: Features, labels: Sequence[str], test: Features, truth: Sequence[str]) -> float:
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    return float(head.fit(train, labels).score(test, truth))


def measure(scratch: Path, pictures: Path, rounds: int = 3) -> str:
    backbone = catalogue.load(NAME)
    train, labels = read(pictures / "train", backbone.preprocessing)
    test, truth = read(pictures / "val", backbone.preprocessing)
    file = scratch / "backbone.onnx"
    onnx_file.save(export(backbone), file)
    most = {"PERFORMANCE_HINT": "THROUGHPUT"}
    in_full, short = (most | {"INFERENCE_PRECISION_HINT": form} for form in ("f32", "bf16"))
    engines = {
        f"ONNX Runtime, {CORES} callers of one thread (the default)": onnx(file, 1, CORES),
        f"ONNX Runtime, one caller of {CORES} threads": onnx(file, CORES, 1),
        "ONNX Runtime, int8 (static, per channel)": onnx(
            int8(file, train[:128], scratch), 1, CORES
        ),
        "PyTorch, channels last": pytorch(backbone.module, torch.float32),
        "PyTorch, channels last, bfloat16": pytorch(backbone.module, torch.bfloat16),
        "OpenVINO, defaults": openvino(file, {}),
        "OpenVINO, throughput, float32": openvino(file, in_full),
        "OpenVINO, throughput, bfloat16": openvino(file, short),
    }
    of_train = {title: run(train) for title, run in engines.items()}  # wakes them up too
    costs = in_turns(rounds, {title: partial(run, test) for title, run in engines.items()})
    first, rows = next(iter(costs.values())), []
    reference = first[0].gave
    for title, took in costs.items():
        features = took[0].gave
        fastest, default = (min(cost.wall for cost in each) for each in (took, first))
        apart = np.linalg.norm(features - reference) / np.linalg.norm(reference)
        right = accuracy(of_train[title], labels, features, truth)
        moved = np.abs(features - reference).max()
        rows.append((title, len(test) / fastest, default / fastest, moved, apart, right))
    columns = "engine | views a second {:.0f} | over the default {:.2f} | largest difference {:.1e}"
    columns += f" | relative (L2) {{:.1e}} | accuracy on {len(test)} {{:.4f}}"
    return f"""# EfficientNet-Lite0 at 224 pixels on {CORES} CPU cores

Backbone alone, batches of {BATCH}, the best of {rounds} rounds in turns. Features against the first
row's.

{table(columns, rows)}
"""
