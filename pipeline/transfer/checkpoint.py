"""Checkpoints of a training run: if it is killed, it resumes after its last complete epoch.

Checkpoints are in the feature store's folder and not among DVC's outputs, because DVC deletes
outputs before a run.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..backbones.catalogue import save_tensors
from ..heads.trained import Figures
from ..store.places import checkpoints_folder, replacing
from .examples import Feed, Labelled
from .network import Network
from .recipe import Recipe

SAME_RUN = 2  # increase if the training changes, so that old checkpoints are ignored


def checkpoint_file(
    network: Network,
    train: Labelled,
    val: Labelled,
    feed: Feed,
    recipe: Recipe,
    device: torch.device,
) -> Path:
    """Return the path of a run's checkpoint; its name is a hash of all that the run depends on.

    The file is in the feature store's folder and not among DVC's outputs, because DVC deletes
    outputs before a run.
    """
    described = [SAME_RUN, torch.__version__, device.type, torch.get_num_threads()]
    described += [asdict(recipe), feed.ranges.model_dump(), feed.preprocessing]
    # Digests identify files. Read settings and libraries decide which inputs are made of them.
    described += [feed.kind.views_made_by(True), feed.kind.view_code]
    described += [[split.digests, split.labels.tolist()] for split in (train, val)]
    sha = hashlib.sha256(json.dumps(described).encode())
    for name, tensor in network.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return checkpoints_folder() / f"{sha.hexdigest()}.safetensors"


def save(
    file: Path,
    curve: list[Figures],
    best: int,
    changing: dict[str, Tensor],
    weights: dict[str, Tensor],
    optimizer: torch.optim.AdamW,
) -> None:
    """Write all that the next epoch needs, atomically."""
    tensors = {f"now/{key}": tensor.detach() for key, tensor in changing.items()}
    tensors |= {f"best/{key}": tensor for key, tensor in weights.items()}
    for key, tensor in changing.items():
        for moment, value in optimizer.state.get(tensor, {}).items():
            tensors[f"{moment}/{key}"] = value
    notes = {"curve": [asdict(figures) for figures in curve], "best": best}
    with replacing(file) as unfinished:
        save_tensors(tensors, unfinished, {"notes": json.dumps(notes)})


def resume(
    file: Path, changing: dict[str, Tensor], optimizer: torch.optim.AdamW
) -> tuple[list[Figures], int, dict[str, Tensor]] | None:
    """Restore the state that `save` wrote; return None if the checkpoint is missing or damaged."""
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as opened:
            notes = json.loads(opened.metadata()["notes"])
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"{file} is damaged ({type(error).__name__}), so training begins again")
        return None
    weights = {}
    with torch.no_grad():
        for key, tensor in changing.items():
            tensor.copy_(tensors[f"now/{key}"])
            weights[key] = torch.empty_like(tensor).copy_(tensors[f"best/{key}"])
            if f"step/{key}" in tensors:
                optimizer.state[tensor] = {
                    "step": tensors[f"step/{key}"],
                    "exp_avg": torch.empty_like(tensor).copy_(tensors[f"exp_avg/{key}"]),
                    "exp_avg_sq": torch.empty_like(tensor).copy_(tensors[f"exp_avg_sq/{key}"]),
                }
    return [Figures(**figures) for figures in notes["curve"]], notes["best"], weights
