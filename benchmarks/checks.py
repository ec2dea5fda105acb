"""How much of what is planted the checks find, and how many false alarms they raise.

Two sets, real pictures both: the ants and bees of PyTorch's tutorial, and the default surfaces
(the boxes whose patches do not overlap). Splits are drawn anew for each seed. Planted are copies
of training pictures in the test split, wrong labels, and test splits of which every picture, or
three in ten, was changed.
"""

import importlib
import io
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from benchmarks.harness import ROOT, Project, table
from pipeline.checks import checks
from pipeline.core.files import digest
from pipeline.core.paths import CHECKS, MANIFEST
from pipeline.kinds.image import decode
from pipeline.sources.splits import draw
from pipeline.sources.surfaces import PATCH, cut

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
SETS = ("hymenoptera", "surfaces")
COPIES = 10  # of each kind, in each run
Change = Callable[[Image.Image], Image.Image]
Rows = dict[str, tuple[int, ...]]  # of a table, by their first cells


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    size = tuple(max(8, round(side * factor)) for side in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, share: float) -> Image.Image:
    """Without `share` of each side, half of it at either end."""
    across, down = (side * share / 2 for side in picture.size)
    right, bottom = picture.width - across, picture.height - down
    return picture.crop((round(across), round(down), round(right), round(bottom)))


def cast(picture: Image.Image, factor: float) -> Image.Image:
    tinted = np.asarray(picture) * np.array([factor, 1, 1 / factor])
    return Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8))


# Copies are saved as JPEG of quality 90 after this.
DUPLICATES: dict[str, Change] = {
    "JPEG, quality 70": lambda picture: as_jpeg(picture, 70),
    "scaled by 0.8": lambda picture: scaled(picture, 0.8),
    "mirrored": ImageOps.mirror,
    "cropped by 10 %": lambda picture: cropped(picture, 0.1),
    "JPEG, quality 30": lambda picture: as_jpeg(picture, 30),
    "scaled by 0.5": lambda picture: scaled(picture, 0.5),
    "cropped by 20 %": lambda picture: cropped(picture, 0.2),
    "cropped by 30 %": lambda picture: cropped(picture, 0.3),
    "made grey": lambda picture: picture.convert("L").convert("RGB"),
    "turned by 5°": lambda picture: picture.rotate(5, Image.Resampling.BICUBIC),
}
DRIFTS: dict[str, tuple[Change, float]] = {
    "blurred (1 % of the side)": (
        lambda p: p.filter(ImageFilter.GaussianBlur(0.01 * min(p.size))), 1.0,
    ),
    "darker, 0.7": (lambda p: ImageEnhance.Brightness(p).enhance(0.7), 1.0),
    "darker, 0.4": (lambda p: ImageEnhance.Brightness(p).enhance(0.4), 1.0),
    "colour cast, 1.3": (lambda p: cast(p, 1.3), 1.0),
    "JPEG, quality 70": (lambda p: as_jpeg(p, 70), 1.0),
    "three in ten darker, 0.4": (lambda p: ImageEnhance.Brightness(p).enhance(0.4), 0.3),
    "three in ten JPEG, quality 70": (lambda p: as_jpeg(p, 70), 0.3),
}  # fmt: skip
RATES = {"one picture": 0.0, "2 %": 0.02, "5 %": 0.05, "10 %": 0.1}


def run(*stages: str) -> None:
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def gather(name: str, source: Path, folder: Path) -> Path:
    """All pictures of a set in one folder a class."""
    if name == "surfaces":
        recipe = pd.read_csv(ROOT / "data/raw/surfaces.csv")
        wide = recipe["right"] - recipe["left"] >= PATCH * recipe["across"]
        high = recipe["bottom"] - recipe["top"] >= PATCH * recipe["down"]
        folder.mkdir()
        recipe[wide & high].to_csv(folder / "recipe.csv", index=False)
        files = [(path, label) for path, label, _ in cut(folder / "recipe.csv", folder / "cut")]
    else:
        files = [(file, file.parent.name) for file in source.glob("*/*/*")]
    for file, label in files:
        (folder / "raw" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / "raw" / label)
    return folder / "raw"


def redrawn(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    return manifest.assign(split=[draw(digest, SHARES, seed) for digest in manifest["digest"]])


def picture_of(path: str) -> Image.Image:
    return decode.decode(Path(path).read_bytes())


def planted(row: dict[str, object], picture: Image.Image, file: Path, **more: object) -> dict:
    """The manifest's row of a picture that is written to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, quality=90)
    return {**row, "path": str(file), "digest": digest(file.read_bytes()), **more}


def tables(manifest: pd.DataFrame, extract: bool) -> dict[str, pd.DataFrame]:
    manifest.sort_values("path").to_parquet(MANIFEST)
    if extract:
        run("augment", "extract")
    checks()
    return {file.stem: pd.read_csv(file) for file in CHECKS.glob("*.csv")}


def clean(manifest: pd.DataFrame, seeds: int) -> Rows:
    """Alarms over some drawings of the splits, nothing planted."""
    total: Counter = Counter()
    for seed in range(seeds):
        found = tables(redrawn(manifest, seed), extract=False)
        total["pairs called near-duplicates"] += len(found["near_duplicates"])
        total["pictures called label issues"] += len(found["label_issues"])
        total[f"splits called drifted, of {2 * seeds}"] += int(found["drift"]["drifted"].sum())
    return {alarm: (count,) for alarm, count in total.items()}


def copies(manifest: pd.DataFrame, seeds: int) -> Rows:
    """How many of each kind were found, and pairs that nobody planted."""
    nobody = f"pairs that nobody planted, {seeds} runs"
    hits = Counter(dict.fromkeys([*DUPLICATES, nobody], 0))
    for seed in range(seeds):
        drawn = redrawn(manifest, seed)
        trained = drawn[drawn["split"] == "train"]
        chosen = trained.sample(COPIES * len(DUPLICATES), random_state=seed)
        more, kind_of = [], {}
        for i, row in enumerate(chosen.to_dict("records")):
            kind = list(DUPLICATES)[i % len(DUPLICATES)]
            copy = DUPLICATES[kind](picture_of(row["path"]))
            file = Path(f"data/raw/copies/{seed}/{i}.jpg")
            more.append(planted(row, copy, file, split="test"))
            kind_of[str(file), row["path"]] = kind
        found = tables(pd.concat([drawn, pd.DataFrame(more)]), extract=True)["near_duplicates"]
        pairs = zip(found["path"], found["other_path"], strict=True)
        hits.update(kind_of.get(pair, nobody) for pair in pairs)
    return {kind: (count,) for kind, count in hits.items()}


def labels(manifest: pd.DataFrame, rate: float, seeds: int) -> Counter:
    """Labels made wrong, found, found with the right one suggested, and false alarms."""
    total: Counter = Counter()
    names = sorted(manifest["label"].unique())
    for seed in range(seeds):
        drawn = redrawn(manifest, seed)
        random = np.random.default_rng(seed)
        wrong = random.choice(len(drawn), max(1, int(rate * len(drawn))), replace=False)
        right = drawn["label"].iloc[wrong].tolist()
        given = [random.choice([name for name in names if name != label]) for label in right]
        changed = drawn.copy()
        changed.iloc[wrong, changed.columns.get_loc("label")] = given
        truth = dict(zip(drawn["path"].iloc[wrong], right, strict=True))
        found = tables(changed, extract=False)["label_issues"]
        total["planted"] += len(wrong)
        for path, suggested in zip(found["path"], found["suggested"], strict=True):
            total["found"] += path in truth
            total["right"] += truth.get(path) == suggested
            total["false"] += path not in truth
    return total


def drifted(manifest: pd.DataFrame, kind: str, seeds: int) -> tuple[int, int]:
    """Changed test splits that were found; unchanged validation splits that were called so."""
    change, share = DRIFTS[kind]
    found = []
    for seed in range(seeds):
        drawn = redrawn(manifest, seed)
        random = np.random.default_rng(seed)
        changes = (drawn["split"] == "test").to_numpy() & (random.random(len(drawn)) < share)
        folder = Path(f"data/raw/drift/{list(DRIFTS).index(kind)}/{seed}")
        new = [
            planted(row, change(picture_of(row["path"])), folder / f"{i}.png")
            for i, row in enumerate(drawn[changes].to_dict("records"))
        ]
        drift = tables(pd.concat([drawn[~changes], pd.DataFrame(new)]), extract=True)["drift"]
        found.append(drift.set_index("split")["drifted"])
    return sum(int(one["test"]) for one in found), sum(int(one["val"]) for one in found)


def measure(
    scratch: Path, pictures: Path, seeds: int = 3, drawings: int = 10, single: int = 20
) -> str:
    sizes, right = [], Counter()
    kinds = ("clean", "copies", "labels", "drift")
    rows: dict[str, dict[str, tuple]] = {kind: defaultdict(tuple) for kind in kinds}
    for name in SETS:
        raw = gather(name, pictures, scratch / f"{name} raw")
        project = Project(scratch / name, raw, augment={"views": 0})
        with project.inside():
            run("ingest", "augment", "extract")
            manifest = pd.read_parquet(MANIFEST)
            sizes.append(f"{name} {len(manifest)} pictures")
            found = {"clean": clean(manifest, drawings), "labels": {}}
            for rate, share in RATES.items():
                runs = seeds if share else single
                total = labels(manifest, share, runs)
                hits = f"{total['found']} / {total['planted']}"
                found["labels"][f"{rate}, {runs} runs"] = (hits, total["false"])
                right += total
            # After these the features of planted pictures lie beside those of the set.
            found["copies"] = copies(manifest, seeds)
            found["drift"] = {kind: drifted(manifest, kind, seeds) for kind in DRIFTS}
        for kind, of_set in found.items():
            for title, cells in of_set.items():
                rows[kind][title] += cells

    def shown(kind: str, columns: str) -> str:
        return table(columns, [(title, *cells) for title, cells in rows[kind].items()])

    of_kind, each = COPIES * seeds, f"| {' | '.join(SETS)}"
    alarms = "| " + " | ".join(f"{name} | false alarms" for name in SETS)
    return f"""# Checks: what is found of what was planted

Default parameters; EfficientNet-Lite0; {", ".join(sizes)}. Splits drawn anew for each seed.

## Nothing planted, {drawings} drawings of the splits

{shown("clean", each)}

## Copies of training pictures in the test split: found, of {of_kind} of each kind

{shown("copies", each)}

## Wrong labels: found / planted, and false alarms

{shown("labels", alarms)}

Of the {right["found"]} found, the right label was suggested for {right["right"]}. The real pictures
may hold wrong labels of their own; those count as false alarms here.

## Changed test splits: found, of {seeds}; unchanged validation splits called so

{shown("drift", alarms)}
"""
