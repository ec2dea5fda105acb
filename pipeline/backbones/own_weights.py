"""Load the user's own weights into a network of timm or torchvision.

The file is in safetensors format, or was written by `torch.save(network.state_dict(), file)`. From
such a file only tensors are read (`weights_only`), so code in it never runs.
"""

import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..core.backbone import Backbone
from ..core.errors import WeightsError

Tensors = dict[str, Tensor]

# The keys of a checkpoint that may have the weights. An average of the weights is preferred to the
# last ones, as in timm.
INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "backbone.")  # of wrapped networks
SCALING = {"mean", "std"}  # in our own files, beside the network
# The last layers of timm's and torchvision's classifiers, and the parts only used in training.
LAST = ("fc", "classifier", "head", "heads", "head_dist", "last_linear")
AUXILIARY = ("aux1", "aux2", "AuxLogits", "mask_token")
MANY = 3  # names shown in a message


def put_into(network: nn.Module, backbone: Backbone, file: Path) -> None:
    """Load the weights in `file` into `network`, which has no classifier; the file may have one.

    Prefixes of wrappers are removed from the names (`module.` of `DataParallel`). If the names
    then do not match the network, timm's function that converts other projects' names is tried.

    Raises:
        WeightsError: the file does not exist, is damaged, is not a state dictionary, belongs to a
            different network, or holds numbers that are not finite.
    """
    tensors = _plain(_read(file))
    kept, left_out = _parted(tensors, network)
    changed = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if _wrong(kept, network) and changed:
        try:
            renamed = changed(dict(tensors), network)
        except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, ValueError):
            renamed = tensors  # it expects another project's names
        again, without = _parted({**renamed}, network)
        if not _wrong(again, network):
            kept, left_out = again, without
    if wrong := _wrong(kept, network):
        raise WeightsError(f"{file} holds weights of a network other than {backbone}: {wrong}")
    for key, tensor in kept.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(f"{file} holds numbers that are not finite, in {key}")
    network.load_state_dict(kept, strict=False)
    if left_out:
        print(
            f"weights: {file}: ignored {_some(left_out)}, which does not affect the features",
            flush=True,
        )


def _read(file: Path) -> Mapping[Any, Any]:
    """Read the file.

    Raises:
        WeightsError: the file cannot be read, or reading it would run code.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():  # they repeat the errors raised below
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{file} does not exist") from None
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise WeightsError(
                f"{file} holds pickled code ({code[1]}), which is never run: where it was made,"
                " write it again by `torch.save(network.state_dict(), file)`"
            ) from None
        raise WeightsError(f"{file} is damaged, or was not written by torch.save") from None
    except (EOFError, OSError, RuntimeError, SafetensorError, ValueError, KeyError) as error:
        if zipfile.is_zipfile(file) and "TorchScript" in str(error):
            raise WeightsError(
                f"{file} is a TorchScript archive, which is code: where it was made, write"
                " `torch.save(network.state_dict(), file)`"
            ) from None
        raise WeightsError(f"{file} is damaged: {_said(error)}") from None
    if not isinstance(found, Mapping):
        raise WeightsError(f"{file} holds {type(found).__name__}, not a state dictionary")
    return found


def _plain(found: Mapping[Any, Any]) -> Tensors:
    """Return the tensors by their names in the network, without the prefixes of wrappers."""
    for key in INSIDE:
        if isinstance(found.get(key), Mapping):
            found = found[key]
            break
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    stripped = True
    while stripped:
        stripped = False
        inner = {key: tensor for key, tensor in tensors.items() if key not in SCALING}
        for wrapper in WRAPPERS:
            if inner and all(key.startswith(wrapper) for key in inner):
                tensors = {key.removeprefix(wrapper): tensor for key, tensor in inner.items()}
                stripped = True
                break
    return tensors


def _parted(tensors: Tensors, network: nn.Module) -> tuple[Tensors, list[str]]:
    """Return the network's tensors, and the names of a classifier's tensors, which it lacks."""
    known = network.state_dict()
    stated = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    last = {*LAST, *AUXILIARY, *([stated] if isinstance(stated, str) else stated)}
    prefixes = tuple(f"{name}." for name in last)
    left_out = [
        key
        for key in tensors
        if key not in known and (key.startswith(prefixes) or key in AUXILIARY)
    ]
    return {key: tensor for key, tensor in tensors.items() if key not in left_out}, left_out


def _wrong(tensors: Tensors, network: nn.Module) -> str:
    """Describe how the tensors differ from the network's; empty if names and shapes match."""
    known = network.state_dict()
    lacking = [
        key for key in known if key not in tensors and not key.endswith("num_batches_tracked")
    ]
    unknown = [key for key in tensors if key not in known]
    other = [
        f"{key} {list(tensor.shape)} instead of {list(known[key].shape)}"
        for key, tensor in tensors.items()
        if key in known and tensor.shape != known[key].shape
    ]
    problems = [
        f"{_some(keys)} {words}"
        for keys, words in ((lacking, "lacking"), (unknown, "unknown"), (other, ""))
        if keys
    ]
    return "; ".join(one.strip() for one in problems)


def _some(keys: list[str]) -> str:
    shown = ", ".join(sorted(keys)[:MANY])
    return shown if len(keys) <= MANY else f"{shown} and {len(keys) - MANY} more"


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
