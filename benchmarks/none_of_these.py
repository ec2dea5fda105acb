"""Can an answer tell that an example is none of the classes? Nearest neighbours beside the scores.

    python -m benchmarks none_of_these ../shared/data/hymenoptera [--draws DRAWS]

Far from training: the model of one set of data is asked about all of another one. Near: each class
is left out of training in turn, and the model is asked about its examples; those of the other
classes in the test split are what it should know. A model is the head that `train` trains with its
default parameters, on features of view 0. The distance is that to the k-th nearest training example
(Sun et al., 2022), of the bank that `bundle` takes. Beside it are the largest probability
(Hendrycks and Gimpel, 2017), the energy of the logits (Liu et al., 2020), and the distance to the
nearest mean of a class, which a bundle without training examples goes by. AUROC is the
probability that a strange example gets a worse figure than one that the model should know.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from benchmarks.harness import digits, table
from benchmarks.sets import Data, divided, pictures, titles, trained
from pipeline.heads.head import Head
from pipeline.serving import usual
from pipeline.serving.explain import directions, neighbours
from pipeline.tables.features import Split

KS = (1, 5, 10, 50)
BANKS = (50, 100, 200, 500, 1000)
Doubles = npt.NDArray[np.float64]


def distances(features: Any, bank: Any, k: int) -> Doubles:
    """To the k-th nearest row of the bank."""
    _, cosines = neighbours(directions(features), bank, k)
    return np.sqrt(np.maximum(2 - 2 * cosines[:, -1].astype(np.float64), 0))


def banked(train: Split, most: int = usual.MOST) -> Any:
    """The directions of training examples, as the bundle has them."""
    order = usual.bank_first([str(label) for label in train.labels])
    return directions(train.features[order][:most]).astype(np.float16).astype(np.float32)


def means(train: Split) -> Any:
    """The classes' means, as a bundle without training examples has them."""
    found = usual.class_means(directions(train.features), train.labels, train.labels.max() + 1)
    return found.astype(np.float16).astype(np.float32)


def figures(
    head: Head, temperature: float, bank: Any, of_classes: Any, features: Any
) -> dict[str, Doubles]:
    """Of each example how strange it is, by each way."""
    logits = head.logits(features).astype(np.float64) / temperature
    found = {f"k = {k}": distances(features, bank, k) for k in KS}
    found["class means"] = distances(features, of_classes, 1)
    found["largest probability"] = -np.exp(logits.max(axis=1) - logsumexp(logits, axis=1))
    return found | {"energy": -logsumexp(logits, axis=1)}


def auroc(known: Doubles, strange: Doubles) -> float:
    truth = np.repeat([0, 1], [len(known), len(strange)])
    return float(roc_auc_score(truth, np.concatenate([known, strange])))


def judged(
    data: Data, seed: int, left_out: int | None, others: Any
) -> tuple[dict[str, float], float, float]:
    """AUROC by each way, and the shares of known and of strange examples that are unusual.

    Args:
        data: what the model learns from.
        seed: of the split.
        left_out: the class that it does not know.
        others: features of strange examples; None for those of the class that is left out.
    """
    pool = data.pool
    if left_out is not None:
        others = pool.features[pool.labels == left_out]
        pool = pool.take(pool.labels != left_out)
        labels = pool.labels - (pool.labels > left_out)
        split = None if data.split is None else data.split[data.pool.labels != left_out]
        classes = [name for number, name in enumerate(data.classes) if number != left_out]
        data = replace(data, pool=replace(pool, labels=labels), classes=classes, split=split)
    train, val, test = divided(data, seed)
    head, about = trained(data, train, val)
    bank = banked(train)
    told = usual.described(bank, train.digests.tolist(), val.features)
    known, strange = (
        figures(head, about.calibration.temperature, bank, means(train), features)
        for features in (test.features, others)
    )
    of_nearest = [
        distances(some, bank, usual.K) > told["threshold"] for some in (test.features, others)
    ]
    found = {name: auroc(known[name], strange[name]) for name in known}
    return found, float(of_nearest[0].mean()), float(of_nearest[1].mean())


def far(sets: dict[str, Data], draws: int) -> list[list[Any]]:
    """A row a pair of sets."""
    rows = []
    for name, data in sets.items():
        for other, strange in sets.items():
            if (
                name.split(",")[0] == other.split(",")[0]
                or "," in other
                or data.pool.features.shape[1] != strange.pool.features.shape[1]
            ):
                continue
            seeds = range(draws if data.split is None else 1)
            found = [judged(data, seed, None, strange.pool.features) for seed in seeds]
            rows.append([name, other, *averaged(found)])
            print(*rows[-1], flush=True)
    return rows


def near(sets: dict[str, Data], draws: int) -> list[list[Any]]:
    """A row a set: means over its classes, and the class that is told worst by the nearest one."""
    rows = []
    for name, data in sets.items():
        if len(data.classes) < 3:
            continue
        seeds = range(draws if data.split is None else 1)
        of_class = {
            label: [judged(data, seed, number, None) for seed in seeds]
            for number, label in enumerate(data.classes)
        }
        every = [one for found in of_class.values() for one in found]
        nearest = {
            label: float(np.mean([one[0][f"k = {usual.K}"] for one in found]))
            for label, found in of_class.items()
        }
        worst = min(nearest, key=lambda label: nearest[label])
        rows.append([name, *averaged(every), f"{worst} ({nearest[worst]:.3f})"])
        print(*rows[-1], flush=True)
    return rows


def averaged(found: list[tuple[dict[str, float], float, float]]) -> list[float]:
    ways = found[0][0]
    return [
        *(float(np.mean([one[0][way] for one in found])) for way in ways),
        float(np.mean([one[1] for one in found])),
        float(np.mean([one[2] for one in found])),
    ]


def by_bank(data: Data, draws: int) -> list[list[Any]]:
    """AUROC of classes left out, by how many training examples are in the bank."""
    rows = []
    for size in BANKS:
        found: dict[int, list[float]] = {k: [] for k in KS}
        for seed in range(draws):
            for number in range(len(data.classes)):
                train, _, test = divided(data, seed)
                bank = banked(train.take(train.labels != number), size)
                known = test.take(test.labels != number).features
                strange = data.pool.features[data.pool.labels == number]
                for k in KS:
                    if k <= len(bank):
                        pair = (distances(features, bank, k) for features in (known, strange))
                        found[k].append(auroc(*pair))
        rows.append([size, *(np.mean(found[k]) if found[k] else None for k in KS)])
    return rows


def kept(sets: dict[str, Data], draws: int) -> list[list[Any]]:
    """How many of new examples like those of training are unusual, over redrawn divisions."""
    rows = []
    for name, data in sets.items():
        found = []
        for seed in range(draws if data.split is None else 1):
            train, val, test = divided(data, seed)
            bank = banked(train)
            told = usual.described(bank, train.digests.tolist(), val.features)
            few = usual.described(bank, train.digests.tolist(), val.features[:0])
            seen = distances(test.features, bank, usual.K)
            found.append([(seen > one["threshold"]).mean() for one in (told, few)])
        shares = np.array(found)
        ends = np.quantile(shares[:, 0], [0.05, 0.95])
        said = f"{ends[0]:.3f}–{ends[1]:.3f}"
        rows.append([name, len(data.pool.labels), shares[:, 0].mean(), said, shares[:, 1].mean()])
    return rows


def measure(scratch: Path, hymenoptera: Path, draws: int = 3) -> str:
    own = pictures(scratch / "surfaces", own_split=True)
    of_insects = pictures(scratch / "hymenoptera", hymenoptera, own_split=True)
    drawn_digits = digits(scratch / "of digits", each=200)
    sets = {
        "surfaces": replace(own, split=None),
        "surfaces, own split": own,
        "hymenoptera": replace(of_insects, split=None),
        "hymenoptera, own split": of_insects,
        "digits": pictures(scratch / "digits", drawn_digits),
        "titles": titles(),
    }
    ways = [*(f"k = {k}" for k in KS), "class means", "largest probability", "energy"]
    columns = " | ".join(f"{way} {{:.4f}}" for way in ways)
    shares = "known that are unusual {:.3f} | strange that are unusual {:.3f}"
    return PAGE.format(
        draws=draws,
        far=table(f"learned from | asked about | {columns} | {shares}", far(sets, draws)),
        near=table(f"data | {columns} | {shares} | told worst, k = 1", near(sets, draws)),
        banks=table(
            " | ".join(["examples in the bank {:,}", *(f"k = {k} {{:.3f}}" for k in KS)]),
            by_bank(sets["digits"], draws),
        ),
        kept=table(
            "data | examples {:,} | unusual {:.3f} | of draws, 5–95 % | with a threshold from"
            " training examples alone {:.3f}",
            kept(sets, 20 * draws),
        ),
    )


PAGE = """# None of these

Means over {draws} divisions of each set of data, drawn anew, or of its own split: patches of the
surfaces lie side by side, and in their own split those of a place are on one side. The figures by k
are AUROC of the distance to the k-th nearest of the bank's training examples. The last columns of a
table are shares of examples beyond the distance that keeps 95 % of the validation examples, with
k = 1.

## Far from training

{far}

## Near: a class left out of training, each in turn

Means over the classes.

{near}

## How many examples the bank needs

Digits as pictures, a class left out, each in turn; AUROC.

{banks}

## How many examples like those of training are called unusual

5 % is what is aimed at; {draws} times 20 divisions, with k = 1.

{kept}
"""
