"""Optional stage, best: write the bundle of the better network, finetuned or frozen."""

import shutil
import tempfile
from pathlib import Path

from . import kinds
from .backbones import exports
from .backbones.engines import Encoder
from .backbones.engines.on_onnxruntime import on_export
from .core import command, params
from .core.paths import BEST, BUNDLE, FINETUNE, FINETUNED, MANIFEST
from .heads.head import load_head
from .runners.wanted import originals
from .serving.writing import Examples, Parts
from .tables.figures import read_figures
from .tables.manifest import kind_in, read_manifest


def best() -> None:
    """Make a bundle of the finetuned network if it is better, else copy the existing bundle."""
    settings = params.load(kinds.schema)
    extracting, given_away = settings.extract, settings.bundle.training_examples
    figures = read_figures(FINETUNE, "finetune", "taken")
    if not figures["taken"]:
        shutil.copytree(BUNDLE, BEST, dirs_exist_ok=True)
        print(f"best: the frozen network is the better one; {BEST} is a copy of {BUNDLE}")
        return
    manifest, kind = read_manifest(MANIFEST), kind_in(MANIFEST)
    head, about = load_head(FINETUNED / "head.safetensors", FINETUNED / "head.json")
    weights = FINETUNED / "backbone.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "finetuned.onnx"
        exports.write_finetuned(extracting.network, weights, file)
        known = manifest[manifest["split"].isin(["train", "val"])]
        encoder = Encoder((on_export(file, kinds.named(kind)),))
        splits, computed = originals(
            known, about.classes, encoder, extracting.batch_size, about.power
        )
        print(
            f"best: {len(known) - computed} training and validation examples reused,"
            f" {computed} computed"
        )
        finetuned = extracting.model_copy(update={"weights": "finetuned"})
        parts = Parts(kind, finetuned, [file], head, about, figures)
        # `finetune` chose the network on the validation examples.
        parts.write(BEST, Examples(manifest, splits["train"], splits["val"], given_away))
        if about.sets is not None:
            print(f"best: no prediction sets: {about.sets.why_none}")


if __name__ == "__main__":
    command.run(best)
