"""Whether a heat map is a reason: deletion and insertion curves (Petsiuk et al., BMVC 2018).

The most important pixels are replaced by the picture's mean colour, a fifteenth of all at a time
(deletion), or are put back into the blurred picture (insertion); the area under the predicted
class's probability should be small for deletion and large for insertion. The bundle is trained on
the surfaces, or on a folder of pictures (`--pictures`), and asked about some test pictures. Every
map is scaled to the picture as a heat map is. Methods are compared picture by picture.
"""

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from scipy import stats

from benchmarks.harness import CORES, Project, cost, table
from pipeline.core.paths import PREDICTIONS
from pipeline.kinds.image import hiding
from pipeline.kinds.image.preprocess import crop
from pipeline.serving.classifier import Classifier
from pipeline.serving.explain import class_map, effects, falls, odds

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "bundle")
STEPS = 15
MISTAKES = 40
OURS, MAPS, RANDOM = "half of the cells blurred, by design", "class activation map", "random map"
METHODS = (
    OURS,
    "the same without the opposites",
    "without the opposites, cells grey",
    "as many halves at random, blurred",
    "one cell blurred at a time",
    MAPS,
    RANDOM,
)


class Asked(NamedTuple):
    """A test picture: what the backbone saw, its class, and what is answered of others like it."""

    seen: Image.Image
    number: int
    best: int
    shares: np.ndarray
    cam: np.ndarray
    without: Callable[[Iterable[Image.Image]], list[np.ndarray]]


def ask(classifier: Classifier, number: int, path: str) -> Asked:
    """Look at the picture, and at the class that it gets."""
    (name,), (prepared,) = classifier._inputs, classifier.bundle.inputs
    base = classifier.kind.read(Path(path).read_bytes(), prepared)
    session = classifier._session
    shares, *maps = session.run(["probabilities", *classifier._maps], {name: base})
    best = int(shares.argmax())

    def without(pictures: Iterable[Image.Image]) -> list[np.ndarray]:
        found = []
        for picture in pictures:
            changed = base.copy()
            crop(changed, prepared.crop)[:] = np.asarray(picture)
            found.append(session.run(["probabilities"], {name: changed})[0])
        return found

    cam = class_map(maps, classifier._head, classifier.bundle.head.power, best)
    seen = Image.fromarray(crop(base, prepared.crop))
    return Asked(seen, number, best, shares, cam, without)


def blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(hiding.BLUR * picture.width))


def grey(picture: Image.Image) -> Image.Image:
    mean = np.round(np.asarray(picture).mean(axis=(0, 1))).astype(np.uint8)
    return Image.new("RGB", picture.size, tuple(mean.tolist()))


def maps_of(one: Asked) -> dict[str, np.ndarray]:
    """The map of each method, from 0 to 1."""
    design, soft = hiding.together(), blurred(one.seen)

    def asked(hides: np.ndarray, fill: Image.Image) -> np.ndarray:
        masks = (Image.fromarray(255 * hiding.as_map(row).astype(np.uint8)) for row in hides)
        smooth = (mask.resize(one.seen.size, Image.Resampling.BILINEAR) for mask in masks)
        changed = one.without(Image.composite(fill, one.seen, mask) for mask in smooth)
        return np.array([odds(shares, one.best) for shares in changed])

    blur = asked(design, soft)
    half = design[: len(design) // 2]  # the opposites follow
    drawn = np.random.default_rng(0).random(half.shape) < 0.5
    alone = np.eye(design.shape[1], dtype=bool)
    found: tuple[np.ndarray, ...] = (
        effects(blur, design),
        effects(blur[: len(half)], half),
        effects(asked(half, grey(one.seen)), half),
        effects(asked(drawn, soft), drawn),
        falls(odds(one.shares, one.best), asked(alone, soft)),
        one.cam,
        np.asarray(np.random.default_rng(one.number).random(design.shape[1], np.float32)),
    )
    return {
        name: hiding.as_map(heat) if heat.ndim == 1 else heat
        for name, heat in zip(METHODS, found, strict=True)
    }


def areas(one: Asked, heat: np.ndarray) -> tuple[float, float]:
    """Under the curves of deletion and of insertion."""
    smooth = Image.fromarray(heat).resize(one.seen.size, Image.Resampling.BICUBIC)
    places = np.argsort(-np.asarray(smooth).ravel(), kind="stable")
    order = np.empty_like(places)
    order[places] = np.arange(len(places))
    first = order.reshape(one.seen.size[::-1]) / len(places)

    def area(before: Image.Image, after: Image.Image) -> float:
        masks = (Image.fromarray(first < k / STEPS) for k in range(STEPS + 1))
        found = one.without(Image.composite(after, before, mask) for mask in masks)
        return float(np.trapezoid([shares[one.best] for shares in found]) / STEPS)

    return area(one.seen, grey(one.seen)), area(blurred(one.seen), one.seen)


def curves(classifier: Classifier, asked: tuple[int, str]) -> list[tuple[float, float]]:
    """The areas of each method, for one picture."""
    one = ask(classifier, *asked)
    return [areas(one, heat) for heat in maps_of(one).values()]


def difference(of: np.ndarray) -> str:
    """The mean of differences, with the ends of its interval of 95 %, by Student's t."""
    reach = stats.t.ppf(0.975, len(of) - 1) * of.std(ddof=1) / len(of) ** 0.5
    return f"{of.mean():+.3f} ({of.mean() - reach:+.3f} to {of.mean() + reach:+.3f})"


def measure(scratch: Path, pictures: str = "", count: int = 24) -> str:
    given = Path(pictures).resolve() if pictures else None
    project = Project(scratch, given, augment={"views": 0})
    # The class map that others are compared with is of a head on the last layer.
    project.set(extract={"blocks": "last"}, train={"layers": "last"})
    project.work(*STAGES)
    with project.inside():
        classifier = Classifier(Path("bundle"), explains=True)
        paths = pd.read_csv(PREDICTIONS)["path"].tolist()
        some = list(enumerate(paths[:: max(1, len(paths) // count)][:count]))
        with ThreadPoolExecutor(CORES) as pool:
            found = list(pool.map(functools.partial(curves, classifier), some))
        times = seconds_of(classifier, paths)
    each = np.array(found)  # pictures, methods, deletion and insertion
    both = each[:, :, 1] - each[:, :, 0]
    places = {name: METHODS.index(name) for name in (RANDOM, MAPS)}
    rows: list[Any] = [
        (
            name,
            each[:, at, 0].mean(),
            each[:, at, 1].mean(),
            *(
                None if at == base else difference(both[:, at] - both[:, base])
                for base in places.values()
            ),
        )
        for at, name in enumerate(METHODS)
    ]
    columns = "| deletion {:.3f} | insertion {:.3f} | both, over random | both, over class maps"
    name = Path(pictures).name or "the surfaces"
    return f"""# Heat maps as reasons: {len(some)} test pictures of {name}

EfficientNet-Lite0 with its own weights. Areas under the curves of the predicted class's
probability, as the most important pixels are deleted (less is better) or inserted (more is better),
with what insertion is ahead of deletion, compared picture by picture (mean and interval of 95 %).

{table(columns, rows)}

The first is the default, and asks {len(hiding.together())} times; the three below it ask half as
often, one cell at a time {hiding.CELLS**2} times. {MISTAKES} answers with heat maps, one after
another, took {times[0]:.0f} s of processors' time, and {times[1]:.1f} s without: over {CORES}
cores, that is how long one waits where nobody else is at work.
"""


def seconds_of(classifier: Classifier, paths: list[str]) -> tuple[float, float]:
    """What answers with heat maps cost, and without, one after another as in the report.

    In seconds of processors' time, since others may be at work.
    """
    data = [Path(path).read_bytes() for path in paths[:MISTAKES]]

    def answer(heat: bool) -> None:
        for one in data:
            classifier.answer(one, heat=heat, side=160)

    with_maps, without = (cost(functools.partial(answer, heat)) for heat in (True, False))
    return with_maps.cpu, without.cpu
