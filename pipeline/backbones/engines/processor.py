"""The instructions of this machine's processor that affect how an engine rounds."""

import mmap
import platform
from pathlib import Path

import numpy as np

from ...core import packages

CPUINFO = Path("/proc/cpuinfo")

# Operators in a graph that computes with 8-bit integers.
OF_INTEGERS = (b"QuantizeLinear", b"QLinear", b"QAttention", b"MatMulInteger", b"ConvInteger")

OF_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # as Linux calls them

# benchmarks/extract.md has the gain: 125.1 views a second instead of 77.1, 183.4 instead of 104.1.
BFLOAT16 = (
    "this processor supports bfloat16, which makes extraction 1.6 to 1.8 times as fast"
    " (docs/install.md#bfloat16): set extract.precision to bfloat16, and extract.blocks and"
    " train.layers to last"
)


def arithmetic(integers: bool = False, bfloat16: bool = False) -> str:
    """Return a name that processors share if an engine computes the same bits on them.

    Engines choose kernels by instruction set: with AVX-512 they add in a different order than with
    AVX2, and without fused multiply-add they round once more. The order does not matter for 8-bit
    integers, but without VNNI the sum of two products saturates at 16 bits
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        integers: whether the graph computes with 8-bit integers.
        bfloat16: whether the engine computes in bfloat16, whose sums depend on the instructions.
    """
    can = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    machine = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    if machine == "aarch64":
        return f"{machine} sve" if can.get("SVE") else machine
    if machine != "x86_64":
        return machine
    level = "sse"
    if can.get("AVX"):
        level = "avx"
    if can.get("X86_V3", can.get("AVX2") and can.get("FMA3")):  # NumPy 2.4 names the group
        level = "avx2"
    if can.get("X86_V4", can.get("AVX512_SKX")):
        level = "avx512"
    if integers and (can.get("AVX512VNNI") or _tells_of("avx_vnni")):
        level += " vnni"
    if bfloat16:
        level += "".join(f" {flag}" for flag in OF_BFLOAT16 if _tells_of(flag))
    return f"{machine} {level}"


def advice() -> str:
    """Return a line that says how to choose bfloat16; empty if the processor does not have it."""
    if not any(_tells_of(flag) for flag in OF_BFLOAT16):
        return ""
    install = packages.how_to_install("openvino")
    return BFLOAT16 + f", and {install}" * packages.missing("openvino")


def computes_with_integers(file: Path) -> bool:
    """Whether an ONNX graph is quantised; search its bytes, because parsing it is slow."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(name) >= 0 for name in OF_INTEGERS)


def _tells_of(flag: str) -> bool:
    """Whether Linux lists a CPU flag; NumPy only lists instructions that it can use itself."""
    if not CPUINFO.exists():
        return False
    flags = next((one for one in CPUINFO.read_text().splitlines() if one.startswith("flags")), "")
    return flag in flags.split()
