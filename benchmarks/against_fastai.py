"""Time to a model: `dvc repro` from a cold store against fastai's frozen learner.

    python -m benchmarks against_fastai ../shared/data/hymenoptera --python /path/to/fastai/python

The same two cores, pictures (ants and bees, their own split), backbone and weights: fastai trains
EfficientNet-Lite0 frozen, as its `vision_learner` does, with its own augmentation for 3 epochs,
and again for 10.
fastai is not a dependency: make an environment for it and give its Python, for instance

    python -m venv /tmp/fastai
    python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
        > /tmp/fastai/lib/python3.11/site-packages/shared.pth
    /tmp/fastai/bin/pip install --no-deps fastai fastcore "fastprogress<1.1" fasttransform \
        plum-dispatch fastdownload

so that both use the same PyTorch. `dvc repro` runs in a fresh clone with an empty feature store,
with the export of the backbone (once in a machine's life) and without it.
"""

import re
from pathlib import Path
from typing import Any

from benchmarks.harness import Repository, need, run, table


def fastai(pictures: Path, python: str, epochs: int) -> tuple[float, float]:
    """Seconds of a process that trains with fastai, and its accuracy on the same pictures."""
    code = (
        "import sys; from benchmarks import against_fastai as a; a.train_with_fastai(*sys.argv[1:])"
    )
    took = run(python, "-c", code, pictures, str(epochs))
    return took.wall, float(re.findall(r"^accuracy (\S+)", took.gave, re.M)[-1])


def train_with_fastai(pictures: str, epochs: str) -> None:
    """fastai's `vision_learner` on EfficientNet-Lite0, body frozen, with the package's weights.

    As fastai has it, batch normalisation in the frozen body still trains, and each epoch ends with
    the validation pictures.
    """
    from fastai.vision import all as vision  # in an environment of its own

    from pipeline.backbones import catalogue
    from pipeline.core.backbone import Backbone

    vision.set_seed(0, reproducible=True)
    found = catalogue.load(Backbone.parse("efficientnet_lite0"))
    network: Any = found.module.network
    size = found.preprocessing
    scaled = vision.Normalize.from_stats(size.mean, size.std, cuda=False)
    data = vision.DataBlock(
        blocks=(vision.ImageBlock, vision.CategoryBlock),
        get_items=vision.get_image_files,
        splitter=vision.GrandparentSplitter(train_name="train", valid_name="val"),
        get_y=vision.parent_label,
        item_tfms=vision.Resize(size.resize),
        batch_tfms=[*vision.aug_transforms(size=size.crop), scaled],
    ).dataloaders(Path(pictures), bs=32, num_workers=2)
    learner = vision.vision_learner(
        data, "tf_efficientnet_lite0", pretrained=False, normalize=False, metrics=vision.accuracy
    )
    learner.model[0].model.load_state_dict(network.state_dict())
    learner.freeze()
    with learner.no_bar():
        learner.fit_one_cycle(int(epochs), 3e-3)
    print("accuracy", float(learner.recorder.values[-1][-1]))


def measure(
    scratch: Path, pictures: Path, python: str = "", epochs: int = 3, long: int = 10
) -> str:
    """`long`, in epochs: whether fastai comes to Headstart's accuracy later."""
    need(python, "a Python with fastai: --python, see `python -m benchmarks against_fastai --help`")

    def ours(folder: str, *target: str, **changes: dict[str, Any]) -> tuple[float, float]:
        """Seconds of `dvc repro` in a fresh copy, and the accuracy on the set's own `val`."""
        repository = Repository(scratch / folder, pictures, scratch / "backbones", **changes)
        took = repository.run("dvc", "repro", *target).wall
        return took, repository.report("metrics")["test"]["accuracy"]

    whole, exported, model = ours("cold"), ours("exported"), ours("model", "evaluate")
    last = {"extract": {"precision": "bfloat16", "blocks": "last"}, "train": {"layers": "last"}}
    short = ours("short", "evaluate", **last)  # inner layers have float32 alone
    plain = ours("plain", "evaluate", augment={"views": 0})
    other, later = (fastai(pictures, python, count) for count in (epochs, long))
    found = {
        "`dvc repro`, cold store, backbone to be exported": whole,
        "`dvc repro`, cold store, backbone exported before": exported,
        "`dvc repro evaluate`, the same: no checks, bundle, report": model,
        "the same with `extract.precision: bfloat16`, on the last layer": short,
        "the same with `augment.views: 0` (float32)": plain,
        f"fastai, frozen body, {epochs} epochs, its own augmentation": other,
        f"fastai, the same for {long} epochs": later,
    }
    rows = [(what, s, right, other[0] / s, later[0] / s) for what, (s, right) in found.items()]
    columns = "what | seconds {:.1f} | accuracy on the set's `val` {:.4f}"
    columns += f" | fastai's {epochs} epochs over it {{:.1f}} | its {long} epochs over it {{:.1f}}"
    return f"""# Time to a model, beside fastai

EfficientNet-Lite0 with the same weights and pictures, the set's own split. Seconds of the whole
command, from starting Python to the model and its figures.

{table(columns, rows)}
"""
