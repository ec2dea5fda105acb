"""Export a backbone once to an ONNX file and a weights file, kept in the store's folder.

Engines that run an export do not import PyTorch. The default backbones, and plugins that return
an ONNX graph, are also exported without it.
"""

import hashlib
import json
import math
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .. import kinds
from ..core import packages
from ..core.backbone import Backbone
from ..core.errors import ParamsError
from ..kinds import INPUTS, Input, takes
from ..store.places import backbones_folder, replacing
from ..tables.layers import Layer
from . import given
from .families import FAMILIES
from .family import TORCH, UNKNOWN, Opened

if TYPE_CHECKING:
    import onnx

CHECKSUM = "graph"  # in the metadata of the weights, the CRC-32 of the ONNX file
TRIED = 3  # examples, and tokens of a text, to compare two exports of a network


def file_of(backbone: Backbone) -> Path:
    """Return the path of the network's ONNX file, named by a hash of what the export depends on.

    A later run then needs neither PyTorch nor the weights, only ONNX Runtime. The hash covers
    the content of files in `data/weights`, and the versions of the packages that make the export.

    Raises:
        ParamsError: the backbone joins several networks, or a plugin's code does not exist.
        WeightsError: a weights file does not exist.
    """
    family = FAMILIES[backbone.family]
    weights, file = backbone.weights, backbone.weights_file
    if file:
        weights = given.digest(file, f"extract.weights {weights}")
    pooling = "" if backbone.pooling == "auto" else backbone.pooling
    made_by = map(packages.with_version, family.made_by(backbone))
    blocks = "" if backbone.blocks == "last" else backbone.blocks
    parts = [str(backbone), weights, pooling, blocks, *made_by, family.content(backbone)]
    sha = hashlib.sha256(" ".join(parts).encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):  # any of them may write a graph
        sha.update(module.read_bytes())
    sha.update(Path(kinds.__file__).read_bytes())  # ONNX versions and input formats
    return backbones_folder() / f"{sha.hexdigest()}.onnx"


def licence(backbone: Backbone) -> str:
    """Return the licence of a network's weights, as their publisher states it.

    timm states a licence for each set of weights; torchvision states only the licence of its code.
    The YAML beside an ONNX file may state one.
    """
    if backbone.weights == "random":
        return "none needed"
    return UNKNOWN if backbone.weights_file else FAMILIES[backbone.family].licence(backbone)


def is_exported(backbone: Backbone) -> bool:
    """Whether the network's ONNX file and the weights beside it exist."""
    return _is_there(file_of(backbone))


def _is_there(file: Path) -> bool:
    return file.exists() and file.with_suffix(".safetensors").exists()


def _is_sound(file: Path) -> bool:
    """Whether an ONNX file has the bytes that were written, by the CRC-32 in the file beside it.

    ONNX Runtime would compute wrong features with a changed weight, and the store would keep them.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file.with_suffix(".safetensors"), "numpy") as beside:
            noted = (beside.metadata() or {}).get(CHECKSUM)
        return bool(noted == str(zlib.crc32(file.read_bytes())))
    except (OSError, SafetensorError):
        return False


def of_each(backbone: Backbone) -> list[Path]:
    """Return the ONNX file of each network that the backbone joins.

    Raises:
        HeadstartError: as `exported`.
    """
    return [exported(one) for one in backbone.each]


def exported(backbone: Backbone) -> Path:
    """Return the network's ONNX file, from the cache or exported now; a damaged one is replaced.

    The weights for PyTorch are in the `.safetensors` file beside it.

    Raises:
        MissingSetError: exporting this backbone needs PyTorch, which is not installed.
        ParamsError: the model does not exist, a plugin does not return a model, or the model does
            not support the requested pooling.
        WeightsError: the weights cannot be downloaded, or their package is not installed.
    """
    file = file_of(backbone)
    if _is_there(file):
        if _is_sound(file):
            return file
        print(f"extract: {file} is damaged and is exported again", flush=True)
    family = FAMILIES[backbone.family]
    plain = None if backbone.blocks == "last" else exported(backbone.with_blocks("last"))
    made, made_by, stated = family.opened(backbone), family.made_by(backbone), licence(backbone)
    if made is None:
        made, made_by = _from_pytorch(backbone), TORCH
    if plain and (made_by == TORCH or backbone.family == "transformers"):
        _stop_if_rounded(backbone, plain, made)
    _save(made, made_by, stated, file, fingerprint(plain) if plain else None)
    return file


def _stop_if_rounded(backbone: Backbone, plain: Path, made: Opened) -> None:
    """Check that the last layer's features have the same bits in a graph with inner blocks.

    The feature store keeps these features only once, under the key for a graph without inner
    blocks.

    Raises:
        ParamsError: with inner blocks, the exporter wrote the last layer's computation differently.
    """
    import numpy as np
    import onnxruntime

    last = []
    for graph in (plain, made.model.SerializeToString()):
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        shape = [one if isinstance(one, int) else TRIED for one in given.shape]
        drawn = np.random.default_rng(0).integers(0, 100, shape)
        inputs = {given.name: drawn.astype(np.uint8 if "uint8" in given.type else np.int64)}
        last.append(session.run(["features"], inputs)[0].tobytes())
    if last[0] != last[1]:
        raise ParamsError(
            f"extract.blocks all: the exporter rounds the features of {backbone} differently with"
            " inner blocks; set extract.blocks to last"
        )


def _from_pytorch(backbone: Backbone) -> Opened:
    packages.need("torch", f"extract.backbone {backbone} (weights: {backbone.weights})")
    from . import catalogue, onnx_export  # slow to import, and not needed if the file exists

    more = " with inner blocks" * (backbone.blocks == "all")
    print(f"extract: exporting {backbone} to ONNX{more}, once", flush=True)
    network = catalogue.load(backbone)
    return onnx_export.export(network)


def fingerprint(file: Path) -> str:
    """Return the fingerprint of an exported backbone."""
    import onnx

    notes = {entry.key: entry.value for entry in onnx.load_model(file).metadata_props}
    return str(notes["fingerprint"])


def parameters(file: Path) -> int:
    """Return the number of floating-point parameters of an exported backbone."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    constants = onnx.load_model(file).graph.initializer
    return sum(math.prod(one.dims) for one in constants if one.data_type in floats)


def trained(file: Path) -> int:
    """Return the number of trainable parameters of an export, without PyTorch."""
    from safetensors.numpy import load_file

    weights = load_file(file.with_suffix(".safetensors")).items()
    return sum(tensor.size for name, tensor in weights if name.endswith((".weight", ".bias")))


def write_finetuned(backbone: Backbone, weights: Path, file: Path) -> None:
    """Write the network with the weights that `finetune` wrote, as `exported` does.

    Raises:
        DataError: the weights are damaged, or belong to a different network.
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


def _save(
    made: Opened,
    made_by: tuple[str, ...],
    stated: str,
    file: Path,
    print_of_last: str | None = None,
) -> None:
    """Write a graph with its metadata, and the weights under PyTorch's names.

    The fingerprint is a digest of the graph and the preprocessing. Apart from these, the features
    depend only on the engine that computes them. A graph with inner blocks has the fingerprint of
    the graph without them, `print_of_last`, because both compute the same features of the last
    layer.
    """
    import onnx
    from safetensors.numpy import save

    model, preprocessing, tensors = made
    del model.metadata_props[:]
    model.producer_version = ""  # it does not change the features
    sha = hashlib.sha256(json.dumps(preprocessing).encode())
    sha.update(model.SerializeToString(deterministic=True))
    notes = {
        "preprocessing": json.dumps(preprocessing),
        "takes": takes(preprocessing),
        "fingerprint": print_of_last or sha.hexdigest(),
        "licence": stated,
        "libraries": json.dumps({package: version(package) for package in made_by}),
    }
    if print_of_last:
        notes["blocks"] = json.dumps(_blocks_of(model))
    onnx.helper.set_model_props(model, notes)
    graph = model.SerializeToString(deterministic=True)
    with replacing(file) as unfinished:
        unfinished.write_bytes(graph)
    plain = {key: tensor.copy("C") for key, tensor in tensors.items()}
    with replacing(file.with_suffix(".safetensors")) as unfinished:
        unfinished.write_bytes(save(plain, {CHECKSUM: str(zlib.crc32(graph))}))


def _blocks_of(model: "onnx.ModelProto") -> list[Layer]:
    """Return the inner blocks of a graph, which are its outputs besides features and maps."""
    return [
        Layer(output.name, output.type.tensor_type.shape.dim[1].dim_value)
        for output in model.graph.output
        if output.name not in ("features", "maps")
    ]


def blocks_of(notes: dict[str, str]) -> tuple[Layer, ...]:
    """Return the inner blocks of an export, from the metadata of its ONNX file."""
    return tuple(Layer(*one) for one in json.loads(notes.get("blocks", "[]")))


def preprocessing_of(notes: dict[str, str]) -> Input:
    """Return the preprocessing of a backbone, from the metadata of its ONNX file."""
    values = json.loads(notes["preprocessing"])
    form = INPUTS[notes["takes"]]
    return form(*(tuple(value) if isinstance(value, list) else value for value in values))
