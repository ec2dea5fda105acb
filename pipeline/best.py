"""Optional stage, best: the bundle of the better network, the finetuned one where it was taken."""

import shutil
import tempfile
from pathlib import Path

from . import kinds
from .backbones import catalogue, exports
from .backbones.engines.on_onnxruntime import on_export
from .core import command, params
from .core.paths import BEST, BUNDLE, FINETUNE, FINETUNED, MANIFEST
from .heads.head import load_head
from .runners.wanted import originals
from .serving.writing import read_figures, write
from .tables.manifest import kind_in, read_manifest


def best() -> None:
    """Make a bundle of the finetuned network, or copy that of the frozen one."""
    settings = params.load(kinds.schema).extract
    figures = read_figures(FINETUNE, "finetune")
    if not figures["taken"]:
        shutil.copytree(BUNDLE, BEST, dirs_exist_ok=True)
        print(f"best: the frozen network is the better one; {BEST} is a copy of {BUNDLE}")
        return
    manifest, kind = read_manifest(MANIFEST), kind_in(MANIFEST)
    head, about = load_head(FINETUNED / "head.safetensors", FINETUNED / "head.json")
    weights = FINETUNED / "backbone.safetensors"
    backbone = catalogue.with_weights(settings.backbone, weights, settings.pooling)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "finetuned.onnx"
        exports.write(backbone, file, exports.licence(settings.backbone, settings.weights))
        train = manifest[manifest["split"] == "train"]
        engine = on_export(file, kinds.named(kind))
        splits, computed = originals(
            train, about["classes"], [engine], settings.batch_size, about["power"]
        )
        print(f"best: {len(train) - computed} training examples reused, {computed} computed")
        finetuned = settings.model_copy(update={"weights": "finetuned"})
        write(BEST, [file], kind, finetuned, head, about, figures, manifest, splits["train"])


if __name__ == "__main__":
    command.run(best)
