"""Exports: a backbone as an ONNX file and its weights, made once and kept in the store's folder.

Whatever runs on an export imports no PyTorch. The default backbones are exported without it too,
and so are those of plugins that are ONNX graphs.
"""

import hashlib
import json
import math
from importlib import import_module
from importlib.metadata import metadata, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import kinds
from ..core import packages, plugins
from ..core.errors import DataError
from ..core.params import ExtractParams
from ..kinds import INPUTS, Input, takes
from ..store.places import backbones_folder, replacing
from ..tables import joined
from . import given, lite, onnx_file, plugin

if TYPE_CHECKING:
    import onnx

    from .catalogue import Backbone

# Backbones of which the module named here writes the graph itself: they need no PyTorch, and have
# no other weights than their own. Each module has the function `opened(name) -> Opened`, the text
# `licence(name)`, and the packages `made_by(name)` that carry its weights or write the graph.
OWN = {
    "identity": "identity",
    "minilm_l6_v2": "minilm",
    "minilm_l6_v2_int8": "minilm",
    "tf_idf": "terms",
    "transformers": "encoder",  # and the name of the weights
    "speech_embedding": "speech",
    "mfcc": "spectra",
    "log_mel": "spectra",
}

# The packages that make an export of a network of PyTorch.
TORCH = ("onnx", "onnx-ir", "onnxscript", "timm", "torch", "torchvision")

UNKNOWN = "not stated"  # of a licence

# The modules here that write graphs, beside the one of `OWN`. The versions of ONNX and the forms of
# inputs are from the door of `kinds/`.
CODE = (
    "catalogue.py",
    "exports.py",
    "given.py",
    "lite.py",
    "onnx_export.py",
    "own_weights.py",
    "plugin.py",
    "pooling.py",
    "torch_file.py",
)


def file_of(name: str, weights: str, pooling: str = "auto") -> Path:
    """Where the backbone's ONNX file is kept; its name stands for all that the export depends on.

    A later run then needs neither PyTorch nor the weights, only ONNX Runtime. Of files in
    `data/weights` it stands for the content, of the packages that an export is made with for their
    versions.

    Raises:
        WeightsError: such a file is not there.
    """
    told = weights
    if given.is_file(weights):
        told = given.digest(Path(weights), f"extract.weights {weights}")
    if pooling != "auto":
        told = f"{told} {pooling}"
    sha = hashlib.sha256(f"{name} {told} {_origin(name, weights, pooling)}".encode())
    own_module = module_of(name)
    for module in [*CODE, f"{own_module}.py"] if own_module else CODE:
        sha.update(Path(__file__).with_name(module).read_bytes())
    sha.update(Path(kinds.__file__).read_bytes())
    return backbones_folder() / f"{sha.hexdigest()}.onnx"


def _origin(name: str, weights: str, pooling: str) -> str:
    """The packages that make the export, and the content of what is in no package.

    Of a plugin, all that may decide what its function returns.
    """
    if plugins.is_plugin(name):
        return plugin.origin(name)
    told = [packages.with_version(package) for package in _made_by(name, weights, pooling)]
    if given.is_graph(name):
        told.append(onnx_file.digest(name))
    if folder := given.folder(name):
        told.append(given.digest(folder, f"backbone {name}"))
    return " ".join(told)


def _made_by(name: str, weights: str, pooling: str) -> tuple[str, ...]:
    """The packages that the weights are from, and those that write the graph."""
    if _is_lite(name, weights) and pooling == "auto":
        return lite.made_by(name)
    return tuple(own(name).made_by(name)) if module_of(name) else TORCH


def module_of(name: str) -> str | None:
    """The module of this room that writes the backbone's graph itself, if one does."""
    return "onnx_file" if given.is_graph(name) else OWN.get(name.partition(":")[0])


def own(name: str) -> Any:
    """That module."""
    return import_module(f".{module_of(name)}", __package__)


def is_graph(name: str) -> bool:
    """Whether the backbone is a graph that PyTorch cannot run."""
    return module_of(name) is not None or plugin.is_graph(name)


def licence(name: str, weights: str = "pretrained") -> str:
    """The licence of a backbone's weights, as whoever gives them out states it.

    timm states one for each set of weights, torchvision only its own, and the YAML beside an ONNX
    file may.
    """
    if weights == "random":
        return "none needed"
    if given.is_file(weights):
        return UNKNOWN
    if module_of(name):
        return str(own(name).licence(name))
    if name in lite.PREPROCESSING:
        return lite.LICENCE
    family, _, model = name.partition(":")
    if family == "torchvision":
        return f"{metadata('torchvision')['License']} (the code)"
    if family != "timm" or model.startswith(given.HUB) or given.folder(name):
        return UNKNOWN
    import timm  # which takes a while

    return getattr(timm.get_pretrained_cfg(model), "license", None) or UNKNOWN


def _is_lite(name: str, weights: str) -> bool:
    return name in lite.PREPROCESSING and weights == "pretrained"


def is_exported(name: str, weights: str, pooling: str = "auto") -> bool:
    """Whether the backbone's ONNX file and the weights beside it are there."""
    file = file_of(name, weights, pooling)
    return file.exists() and file.with_suffix(".safetensors").exists()


def of_each(settings: ExtractParams) -> list[Path]:
    """The ONNX file of each network that `extract.backbone` joins.

    Raises:
        HeadstartError: as `exported`.
    """
    names = joined.names(settings.backbone)
    return [exported(name, settings.weights, settings.pooling) for name in names]


def exported(name: str, weights: str, pooling: str = "auto") -> Path:
    """The backbone as an ONNX file, from the cache or exported now.

    Its weights for PyTorch lie beside it, as `.safetensors`.

    Raises:
        MissingSetError: it takes PyTorch to export this one, and that is not installed.
        ParamsError: there is no such model, a plugin does not return one, or it cannot be pooled
            as asked.
        WeightsError: the weights cannot be had, for want of a network or a package.
    """
    file = file_of(name, weights, pooling)
    if is_exported(name, weights, pooling):
        return file
    if _is_lite(name, weights) and pooling == "auto":
        _write_lite(name, file)
        return file
    if module_of(name):
        made = own(name).opened(name)
        stated = licence(name)
        made_by = own(name).made_by(name)
        _save(made.model, made.preprocessing, made.tensors, made_by, stated, file)
        return file
    if plugins.is_plugin(name):
        network, preprocessing = plugin.opened(name)
        if not hasattr(network, "state_dict"):
            _save(network, preprocessing, {}, ("onnx",), UNKNOWN, file)
            return file

    packages.need("torch", f"extract.backbone {name} (weights: {weights})")
    from . import catalogue  # slow to import, and not needed when the file is there

    print(f"extract: exporting {name} to ONNX, once", flush=True)
    write(catalogue.load(name, weights, pooling), file, licence(name, weights))
    return file


def fingerprint(file: Path) -> str:
    """The fingerprint of a backbone that was exported."""
    import onnx

    notes = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    return str(notes["fingerprint"])


def parameters(file: Path) -> int:
    """How many numbers of float type an exported backbone holds."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    constants = onnx.load(file).graph.initializer
    return sum(math.prod(one.dims) for one in constants if one.data_type in floats)


def write(backbone: "Backbone", file: Path, stated: str = UNKNOWN) -> None:
    """Write the backbone as an ONNX file, and its weights beside it; `stated` is the licence."""
    from . import onnx_export

    model = onnx_export.export(backbone)
    for node in model.graph.node:  # tells in which folder the code lay: other bytes in a clone
        del node.metadata_props[:]
    tensors = {key: tensor.cpu().numpy() for key, tensor in backbone.module.state_dict().items()}
    _save(model, backbone.preprocessing, tensors, TORCH, stated, file)


def write_finetuned(name: str, pooling: str, weights: Path, file: Path, stated: str) -> None:
    """Write the backbone `name` with the weights that `finetune` left, as `write` does.

    Raises:
        DataError: they are damaged, or of another network.
    """
    if module_of(name):
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            made = own(name).opened(name, load_file(weights))
        except (OSError, KeyError, SafetensorError) as error:
            raise no_weights(weights, name, error) from None
        made_by = own(name).made_by(name)
        _save(made.model, made.preprocessing, made.tensors, made_by, stated, file)
        return
    from . import catalogue

    write(catalogue.with_weights(name, weights, pooling), file, stated)


def no_weights(file: Path, name: str, error: Exception) -> DataError:
    """The error where a file that a stage wrote holds no weights of `name`."""
    reason = " ".join(str(error).split())[:160]
    return DataError(
        f"{file} holds no weights of {name}: {reason}; run again the stage that wrote it"
    )


def _write_lite(name: str, file: Path) -> None:
    tensors = lite.weights(name)
    model = lite.graph(name, tensors)
    network = {
        f"network.{key}": tensor
        for key, tensor in tensors.items()
        if not key.startswith("classifier.")
    }
    tensors = lite.buffers(name) | network
    _save(model, lite.PREPROCESSING[name], tensors, lite.made_by(name), lite.LICENCE, file)


def _save(
    model: "onnx.ModelProto",
    preprocessing: Input,
    tensors: lite.Tensors,
    made_by: tuple[str, ...],
    stated: str,
    file: Path,
) -> None:
    """Write a graph with what is to be known of it, and the weights under PyTorch's names.

    The fingerprint is a digest of graph and preprocessing, which decide the features but for the
    engine that computes them.
    """
    import onnx
    from safetensors.numpy import save

    del model.metadata_props[:]
    model.producer_version = ""  # it decides no number
    sha = hashlib.sha256(json.dumps(preprocessing).encode())
    sha.update(model.SerializeToString(deterministic=True))
    notes = {
        "preprocessing": json.dumps(preprocessing),
        "takes": takes(preprocessing),
        "fingerprint": sha.hexdigest(),
        "licence": stated,
        "libraries": json.dumps({package: version(package) for package in made_by}),
    }
    onnx.helper.set_model_props(model, notes)
    with replacing(file) as unfinished:
        unfinished.write_bytes(model.SerializeToString(deterministic=True))
    plain = {key: tensor.copy("C") for key, tensor in tensors.items()}
    with replacing(file.with_suffix(".safetensors")) as unfinished:
        unfinished.write_bytes(save(plain))


def preprocessing_of(notes: dict[str, str]) -> Input:
    """The preprocessing of a backbone, from the metadata of its ONNX file."""
    values = json.loads(notes["preprocessing"])
    form = INPUTS[notes["takes"]]
    return form(*(tuple(value) if isinstance(value, list) else value for value in values))
