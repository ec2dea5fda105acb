"""Stage 6, bundle: write a folder for prediction that needs neither Headstart nor PyTorch."""

from . import kinds
from .backbones import exports
from .core import command, params
from .core.paths import BUNDLE, FEATURES, HEAD, HEAD_WEIGHTS, MANIFEST, METRICS
from .heads.head import load_head
from .serving.writing import Examples, Parts
from .tables.features import read_splits
from .tables.figures import read_figures
from .tables.manifest import kind_in, read_manifest, task_in


def bundle() -> None:
    """Write the backbone, the head and their metadata into one folder."""
    settings = params.load(kinds.schema)
    given_away = settings.bundle.training_examples
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    about.require_task(task_in(MANIFEST))
    manifest, metrics = read_manifest(MANIFEST), read_figures(METRICS, "evaluate", "test")
    how = ["train", "val"], about.power, about.layers
    splits = read_splits(FEATURES, manifest, about.classes, *how)
    files = exports.of_each(settings.extract.network.with_blocks("all" if about.layers else "last"))
    parts = Parts(kind_in(MANIFEST), settings.extract, files, head, about, metrics)
    parts.write(BUNDLE, Examples(manifest, splits["train"], splits["val"], given_away))


if __name__ == "__main__":
    command.run(bundle)
