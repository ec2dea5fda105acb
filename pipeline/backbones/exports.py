"""Exports: a backbone as an ONNX file and its weights, made once and kept in the store's folder.

Whatever runs on an export imports no PyTorch. The default backbones are exported without it too,
and so are those of plugins that are ONNX graphs.
"""

import hashlib
import json
import math
from importlib.metadata import version
from pathlib import Path

from .. import kinds
from ..core import packages
from ..core.backbone import Backbone
from ..kinds import INPUTS, Input, takes
from ..store.places import backbones_folder, replacing
from . import given
from .families import FAMILIES
from .family import TORCH, UNKNOWN, Opened


def file_of(backbone: Backbone) -> Path:
    """Where the network's ONNX file is kept; its name is a hash of all that the export depends on.

    A later run then needs neither PyTorch nor the weights, only ONNX Runtime. The hash covers
    the content of files in `data/weights`, and the versions of the packages that make the export.

    Raises:
        ParamsError: it joins several networks, or code of a plugin is not there.
        WeightsError: a file of weights is not there.
    """
    family = FAMILIES[backbone.family]
    weights, file = backbone.weights, backbone.weights_file
    if file:
        weights = given.digest(file, f"extract.weights {weights}")
    pooling = "" if backbone.pooling == "auto" else backbone.pooling
    made_by = map(packages.with_version, family.made_by(backbone))
    parts = [str(backbone), weights, pooling, *made_by, family.content(backbone)]
    sha = hashlib.sha256(" ".join(parts).encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):  # any of them may write a graph
        sha.update(module.read_bytes())
    sha.update(Path(kinds.__file__).read_bytes())  # versions of ONNX, and the forms of inputs
    return backbones_folder() / f"{sha.hexdigest()}.onnx"


def licence(backbone: Backbone) -> str:
    """The licence of a network's weights, as whoever gives them out states it.

    timm states one for each set of weights, torchvision only its own, and the YAML beside an ONNX
    file may.
    """
    if backbone.weights == "random":
        return "none needed"
    return UNKNOWN if backbone.weights_file else FAMILIES[backbone.family].licence(backbone)


def is_exported(backbone: Backbone) -> bool:
    """Whether the network's ONNX file and the weights beside it are there."""
    return _is_there(file_of(backbone))


def _is_there(file: Path) -> bool:
    return file.exists() and file.with_suffix(".safetensors").exists()


def of_each(backbone: Backbone) -> list[Path]:
    """The ONNX file of each network that the backbone joins.

    Raises:
        HeadstartError: as `exported`.
    """
    return [exported(one) for one in backbone.each]


def exported(backbone: Backbone) -> Path:
    """The network as an ONNX file, from the cache or exported now.

    Its weights for PyTorch lie beside it, as `.safetensors`.

    Raises:
        MissingSetError: it takes PyTorch to export this one, and that is not installed.
        ParamsError: there is no such model, a plugin does not return one, or it cannot be pooled
            as asked.
        WeightsError: the weights cannot be had, without a network or a package.
    """
    file = file_of(backbone)
    if _is_there(file):
        return file
    family = FAMILIES[backbone.family]
    made, made_by, stated = family.opened(backbone), family.made_by(backbone), licence(backbone)
    if made is None:
        made, made_by = _from_pytorch(backbone), TORCH
    _save(made, made_by, stated, file)
    return file


def _from_pytorch(backbone: Backbone) -> Opened:
    packages.need("torch", f"extract.backbone {backbone} (weights: {backbone.weights})")
    from . import catalogue, onnx_export  # slow to import, and not needed when the file is there

    print(f"extract: exporting {backbone} to ONNX, once", flush=True)
    network = catalogue.load(backbone)
    return onnx_export.export(network)


def fingerprint(file: Path) -> str:
    """The fingerprint of a backbone that was exported."""
    import onnx

    notes = {entry.key: entry.value for entry in onnx.load_model(file).metadata_props}
    return str(notes["fingerprint"])


def parameters(file: Path) -> int:
    """How many numbers of float type an exported backbone holds."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    constants = onnx.load_model(file).graph.initializer
    return sum(math.prod(one.dims) for one in constants if one.data_type in floats)


def write_finetuned(backbone: Backbone, weights: Path, file: Path) -> None:
    """Write the network with the weights that `finetune` left, as `exported` does.

    Raises:
        DataError: they are damaged, or of another network.
    """
    family = FAMILIES[backbone.family]
    made_by = family.made_by(backbone)
    if family.trained:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            made = family.trained(backbone, load_file(weights))
        except (OSError, KeyError, SafetensorError) as error:
            raise given.no_weights(weights, backbone, error) from None
    else:
        from . import catalogue, onnx_export

        made, made_by = onnx_export.export(catalogue.with_weights(backbone, weights)), TORCH
    _save(made, made_by, licence(backbone), file)


def _save(made: Opened, made_by: tuple[str, ...], stated: str, file: Path) -> None:
    """Write a graph with its metadata, and the weights under PyTorch's names.

    The fingerprint is a digest of the graph and the preprocessing. The features depend on nothing
    else but the engine that computes them.
    """
    import onnx
    from safetensors.numpy import save

    model, preprocessing, tensors = made
    del model.metadata_props[:]
    model.producer_version = ""  # it changes no number
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
