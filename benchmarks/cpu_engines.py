"""What else could run the backbone on a CPU: rates, how far features move, what it costs.

    python benchmarks/cpu_engines.py ../shared/data/hymenoptera

All engines get the same views and as many threads as there are cores. Accuracy is that of a
logistic regression on the features of the set's `train`, on its `val`. Writes
`benchmarks/cpu_engines.md`.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime import quantization
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pipeline.backbones import catalogue
from pipeline.core.errors import DataError
from pipeline.kinds.image import preprocess

ROOT = Path(__file__).parent.parent
WHY_NOT = (
    "OpenVINO is not the default because it is much faster than ONNX Runtime in bfloat16 only,",
    "which moves features by some hundredths, on processors that have it: who asks for it, by",
    "`extract.precision: bfloat16`, gets it. int8 moves features by half their length and has to",
    "be calibrated on pictures: a stored feature would depend on others than its own, and that",
    "accuracy did not fall on so few pictures does not say that it never does.",
)
CORES = os.cpu_count() or 1
BATCH = 32
ROUNDS = 3
NAME = "efficientnet_lite0"

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]
Engine = Callable[[Pixels], Features]


def read(folder: Path, preprocessing: preprocess.Preprocessing) -> tuple[Pixels, list[str]]:
    seen, labels = [], []
    for file in sorted(folder.rglob("*.jpg")):
        try:
            base = preprocess.base(file.read_bytes(), preprocessing)
        except DataError as error:
            print(file, error)
            continue
        seen.append(preprocess.crop(base, preprocessing.crop))
        labels.append(file.parent.name)
    return np.stack(seen), labels


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

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Pixels] = iter(batches(sample))

        def get_next(self) -> dict[str, Pixels] | None:
            batch = next(self.left, None)
            return None if batch is None else {"pictures": batch}

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

        def keep(request: object, number: int) -> None:
            parts[number] = request.get_output_tensor(0).data.copy()  # type: ignore[attr-defined]

        queue = AsyncInferQueue(compiled)
        queue.set_callback(keep)
        for number, batch in enumerate(batches(seen)):
            queue.start_async({"pictures": batch}, number)
        queue.wait_all()
        return np.concatenate([parts[number] for number in sorted(parts)])

    return run


def pytorch(module: torch.nn.Module, precision: torch.dtype) -> Engine:
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(seen: Pixels) -> Features:
        with torch.inference_mode(), torch.autocast("cpu", precision, precision != torch.float32):
            return np.concatenate([module(torch.from_numpy(b)).numpy() for b in batches(seen)])

    return run


def accuracy(train: Features, labels: Sequence[str], test: Features, truth: Sequence[str]) -> float:
    scaler = StandardScaler().fit(train)
    head = LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(train), labels)
    return float(head.score(scaler.transform(test), truth))


def main() -> None:
    root = Path(sys.argv[1])
    backbone = catalogue.load(NAME)
    train, labels = read(root / "train", backbone.preprocessing)
    test, truth = read(root / "val", backbone.preprocessing)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "backbone.onnx"
        catalogue.export(backbone, file)
        engines: dict[str, Engine] = {
            f"ONNX Runtime, {CORES} callers of one thread (the default)": onnx(file, 1, CORES),
            f"ONNX Runtime, one caller of {CORES} threads": onnx(file, CORES, 1),
            "ONNX Runtime, int8 (static, per channel)": onnx(
                int8(file, train[:128], Path(name)), 1, CORES
            ),
            "PyTorch, channels last": pytorch(backbone.module, torch.float32),
            "PyTorch, channels last, bfloat16": pytorch(backbone.module, torch.bfloat16),
        }
        most = {"PERFORMANCE_HINT": "THROUGHPUT"}
        engines["OpenVINO, defaults"] = openvino(file, {})
        engines["OpenVINO, throughput, float32"] = openvino(
            file, most | {"INFERENCE_PRECISION_HINT": "f32"}
        )
        engines["OpenVINO, throughput, bfloat16"] = openvino(
            file, most | {"INFERENCE_PRECISION_HINT": "bf16"}
        )
        rows = []
        reference = None
        for title, run in engines.items():
            run(test[:BATCH])
            seconds = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                of_test = run(test)
                seconds.append(time.perf_counter() - start)
            of_train = run(train)
            rate = len(test) / min(seconds)
            if reference is None:
                reference, base_rate = of_test, rate
            moved = np.abs(of_test - reference).max()
            apart = np.linalg.norm(of_test - reference) / np.linalg.norm(reference)
            right = accuracy(of_train, labels, of_test, truth)
            rows.append(
                f"| {title} | {rate:.0f} | {rate / base_rate:.2f} | {moved:.1e} | {apart:.1e}"
                f" | {right:.4f} |"
            )
            print(rows[-1], flush=True)
    lines = [
        f"# EfficientNet-Lite0 at 224 pixels on {CORES} CPU cores",
        "",
        "Made by `python benchmarks/cpu_engines.py ../shared/data/hymenoptera`; backbone alone,",
        f"batches of {BATCH}, the best of {ROUNDS} rounds. Features against the first row's.",
        "",
        "| engine | views a second | over the default | largest difference | relative (L2) |"
        f" accuracy on {len(test)} |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        *WHY_NOT,
        "",
    ]
    (ROOT / "benchmarks" / "cpu_engines.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
