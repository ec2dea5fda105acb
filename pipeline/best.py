"""Optional stage, best: the bundle of the better network, the thawed one where thaw took it."""

import shutil
import tempfile
from pathlib import Path

from . import bundle, extract
from .backbones import catalogue, engines, exports
from .core import command, params
from .core.paths import BEST, BUNDLE, MANIFEST, THAW, THAWED
from .heads.head import load_head
from .tables.features import read_manifest


def best() -> None:
    """Make a bundle of the thawed network, or copy that of the frozen one."""
    settings = params.load().extract
    figures = bundle.read_figures(THAW, "thaw")
    if not figures["taken"]:
        shutil.copytree(BUNDLE, BEST, dirs_exist_ok=True)
        print(f"best: the frozen network is the better one; {BEST} is a copy of {BUNDLE}")
        return
    manifest = read_manifest(MANIFEST)
    head, about = load_head(THAWED / "head.safetensors", THAWED / "head.json")
    backbone = catalogue.with_weights(settings.backbone, THAWED / "backbone.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "thawed.onnx"
        exports.write(backbone, file)
        train = manifest[manifest["split"] == "train"]
        splits, computed = extract.originals(
            train, about["classes"], engines.on_export(file), settings.batch_size, about["power"]
        )
        print(f"best: {len(train) - computed} training pictures reused, {computed} computed")
        thawed = settings.model_copy(update={"weights": "thawed"})
        bundle.write(BEST, file, thawed, head, about, figures, manifest, splits["train"])


if __name__ == "__main__":
    command.run(best)
