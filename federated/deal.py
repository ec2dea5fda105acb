"""Deal a project's examples to sites, to try a federation before there are sites.

`python -m federated.deal FOLDER --sites 3` takes `data/federated.safetensors` of the project in
which it runs, and makes FOLDER/site-1, FOLDER/site-2, … with a part of it each.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.core import command
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import MANIFEST

from .examples import Examples, read, write


def dealt(examples: Examples, sites: int, uneven: float, seed: int) -> list[Examples]:
    """The examples of each site.

    Of each class the sites get shares from a Dirichlet distribution (Hsu, Qi and Brown, 2019), so
    that with a small `uneven` most of a class is at one or two sites. A site without two classes
    then gets an example of another. A validation example goes to a site that trains its class.

    Args:
        examples: of all sites.
        sites: how many there are to be.
        uneven: the concentration; 100 is nearly even.
        seed: of the draw.

    Raises:
        DataError: there are too few examples.
    """
    draw, count = np.random.default_rng(seed), len(examples.classes)
    shares = draw.dirichlet(np.full(sites, uneven), count)
    place = np.empty(len(examples.train_labels), np.int64)
    for one in range(count):
        rows = np.flatnonzero(examples.train_labels == one)
        place[rows] = draw.choice(sites, len(rows), p=shares[one])
    for site in range(sites):
        _have_two_classes(site, place, examples.train_labels, draw)
    known = [set(examples.train_labels[place == site].tolist()) for site in range(sites)]
    if min(map(len, known)) < 2:
        raise DataError(f"there are too few examples for {sites} sites; ask for fewer sites")
    of_val = np.empty(len(examples.val_labels), np.int64)
    for row, one in enumerate(examples.val_labels.tolist()):
        odds = np.where([one in has for has in known], shares[one] + 1e-12, 0)
        of_val[row] = draw.choice(sites, p=odds / odds.sum())
    return [_part(examples, place == site, of_val == site, known[site]) for site in range(sites)]


def _have_two_classes(
    site: int,
    place: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    draw: np.random.Generator,
) -> None:
    """Move rows of other classes to a site that has none or one, if any can be spared."""
    for _ in range(2 - len(np.unique(labels[place == site]))):
        lacking = ~np.isin(labels, labels[place == site])
        sizes = np.bincount(place, minlength=site + 1)
        spare = np.flatnonzero(lacking & (sizes[place] > 2 * len(np.unique(labels))))
        if len(spare):
            place[draw.choice(spare)] = site


def _part(
    examples: Examples,
    train: npt.NDArray[np.bool_],
    val: npt.NDArray[np.bool_],
    known: set[int],
) -> Examples:
    """The rows of a site, whose labels are positions among its own classes."""
    numbers = sorted(known)
    return Examples(
        examples.train[train],
        np.searchsorted(numbers, examples.train_labels[train]),
        examples.val[val],
        np.searchsorted(numbers, examples.val_labels[val]),
        [examples.classes[number] for number in numbers],
        examples.made_by,
    )


def deal() -> None:
    """Make the folders."""
    parser = argparse.ArgumentParser(prog="python -m federated.deal", description=__doc__)
    parser.add_argument("folder", help="where the sites' folders are made")
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--uneven", type=float, default=0.3, help="the smaller, the less even")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.sites < 2 or not asked.uneven > 0:
        raise ParamsError("--sites has to be 2 or more, and --uneven above 0")
    parts = dealt(read(Path()), asked.sites, asked.uneven, asked.seed)
    for number, part in enumerate(parts, 1):
        site = Path(asked.folder) / f"site-{number}"
        (site / "data").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MANIFEST, site / MANIFEST)
        write(part, site)
        print(
            f"deal: {site} has {len(part.train_labels)} training rows and {len(part.val_labels)} "
            f"validation examples of {len(part.classes)} classes"
        )


if __name__ == "__main__":
    command.run(deal, takes_arguments=True)
