"""How much of what is planted the checks find, and how many false alarms they raise.

    python benchmarks/checks.py ../shared/data/hymenoptera

Two sets, real pictures both: the ants and bees of PyTorch's tutorial, and the default surfaces
(the boxes whose patches do not overlap). Splits are drawn anew for each seed. Planted are copies
of training pictures in the test split, wrong labels, and test splits of which every picture, or
three in ten, was changed. Writes `benchmarks/checks.md`.
"""

import importlib
import io
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipeline.checks import checks
from pipeline.core.paths import CHECKS, MANIFEST
from pipeline.kinds.image import decode
from pipeline.sources.splits import draw
from pipeline.sources.surfaces import PATCH, cut

ROOT = Path(__file__).resolve().parent.parent
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
SEEDS = range(3)
COPIES = 10  # of each kind, in each run
Change = Callable[[Image.Image], Image.Image]


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


def prepare(name: str, source: Path, folder: Path) -> pd.DataFrame:
    """All pictures of a set in one folder a class, and the manifest of them after `ingest`."""
    raw = folder / "data" / "raw" / "pictures"
    if name == "surfaces":
        recipe = pd.read_csv(ROOT / "data/raw/surfaces.csv")
        wide = recipe["right"] - recipe["left"] >= PATCH * recipe["across"]
        high = recipe["bottom"] - recipe["top"] >= PATCH * recipe["down"]
        recipe[wide & high].to_csv(folder / "recipe.csv", index=False)
        for path, label, _ in cut(folder / "recipe.csv", folder / "cut"):
            (raw / label).mkdir(parents=True, exist_ok=True)
            path.rename(raw / label / path.name)
    else:
        for file in source.glob("*/*/*"):
            (raw / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, raw / file.parent.name)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["ingest"] |= {"source": "folder", "path": "data/raw/pictures"}
    document["augment"]["views"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    (folder / "reports").mkdir()
    os.chdir(folder)
    run("ingest", "augment", "extract")
    return pd.read_parquet(MANIFEST)


def redrawn(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    return manifest.assign(split=[draw(digest, SHARES, seed) for digest in manifest["digest"]])


def picture_of(path: str) -> Image.Image:
    return decode.decode(Path(path).read_bytes())


def planted(row: dict[str, object], picture: Image.Image, file: Path, **more: object) -> dict:
    """The manifest's row of a picture that is written to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, quality=90)
    return {**row, "path": str(file), "digest": decode.digest(file.read_bytes()), **more}


def tables(manifest: pd.DataFrame, extract: bool) -> dict[str, pd.DataFrame]:
    manifest.sort_values("path").to_parquet(MANIFEST)
    if extract:
        run("augment", "extract")
    checks()
    return {file.stem: pd.read_csv(file) for file in CHECKS.glob("*.csv")}


def clean(manifest: pd.DataFrame) -> Counter:
    """Alarms over ten drawings of the splits, nothing planted."""
    alarms: Counter = Counter()
    for seed in range(10):
        found = tables(redrawn(manifest, seed), extract=False)
        alarms["pairs"] += len(found["near_duplicates"])
        alarms["suspects"] += len(found["label_suspects"])
        alarms["drifted"] += int(found["drift"]["drifted"].sum())
    return alarms


def copies(manifest: pd.DataFrame) -> tuple[Counter, int]:
    """How many of each kind were found, and pairs that nobody planted."""
    hits, others = Counter(), 0
    for seed in SEEDS:
        drawn = redrawn(manifest, seed)
        chosen = drawn[drawn["split"] == "train"].sample(
            COPIES * len(DUPLICATES), random_state=seed
        )
        more, kind_of = [], {}
        for i, row in enumerate(chosen.to_dict("records")):
            kind = list(DUPLICATES)[i % len(DUPLICATES)]
            copy = DUPLICATES[kind](picture_of(row["path"]))
            file = Path(f"data/raw/copies/{seed}/{i}.jpg")
            more.append(planted(row, copy, file, split="test"))
            kind_of[str(file), row["path"]] = kind
        found = tables(pd.concat([drawn, pd.DataFrame(more)]), extract=True)["near_duplicates"]
        for pair in zip(found["path"], found["other_path"], strict=True):
            hits[kind_of.get(pair, "")] += 1
    others = hits.pop("", 0)
    return hits, others


def labels(manifest: pd.DataFrame, rate: float) -> Counter:
    """Labels made wrong, found, found with the right one suggested, and false alarms."""
    total: Counter = Counter()
    names = sorted(manifest["label"].unique())
    for seed in range(20) if rate == 0 else SEEDS:
        drawn = redrawn(manifest, seed)
        random = np.random.default_rng(seed)
        wrong = random.choice(len(drawn), max(1, int(rate * len(drawn))), replace=False)
        right = drawn["label"].iloc[wrong].tolist()
        given = [random.choice([name for name in names if name != label]) for label in right]
        changed = drawn.copy()
        changed.iloc[wrong, changed.columns.get_loc("label")] = given
        truth = dict(zip(drawn["path"].iloc[wrong], right, strict=True))
        found = tables(changed, extract=False)["label_suspects"]
        total["planted"] += len(wrong)
        for path, suggested in zip(found["path"], found["suggested"], strict=True):
            total["found"] += path in truth
            total["right"] += truth.get(path) == suggested
            total["false"] += path not in truth
    return total


def drifted(manifest: pd.DataFrame, change: Change, share: float, name: str) -> Counter:
    """Test splits changed, found, and validation splits, which were not, that were called so."""
    total: Counter = Counter()
    for seed in SEEDS:
        drawn = redrawn(manifest, seed)
        random = np.random.default_rng(seed)
        is_test = (drawn["split"] == "test").to_numpy()
        changes = is_test & (random.random(len(drawn)) < share)
        new = [
            planted(
                row, change(picture_of(row["path"])), Path(f"data/raw/drift/{name}/{seed}/{i}.png")
            )
            for i, row in enumerate(drawn[changes].to_dict("records"))
        ]
        found = tables(pd.concat([drawn[~changes], pd.DataFrame(new)]), extract=True)["drift"]
        is_drifted = found.set_index("split")["drifted"]
        total += Counter(planted=1, found=int(is_drifted["test"]), false=int(is_drifted["val"]))
    return total


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    sets = ("hymenoptera", "surfaces")
    results: dict[str, dict] = {}
    for name in sets:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            os.environ["HEADSTART_STORE"] = str(folder / "store")
            manifest = prepare(name, source, folder)
            found = {"pictures": len(manifest), "clean": clean(manifest)}
            found["labels"] = {rate: labels(manifest, share) for rate, share in RATES.items()}
            found["copies"] = copies(manifest)
            found["drift"] = {
                kind: drifted(manifest, change, share, str(i))
                for i, (kind, (change, share)) in enumerate(DRIFTS.items())
            }
            results[name] = found
            print(name, found, flush=True)
            os.chdir(ROOT)
    write(results)


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def share_found(result: dict, what: str, kind: str) -> float:
    if what == "copies":
        return result["copies"][0][kind] / (COPIES * len(SEEDS))
    return result["drift"][kind]["found"] / len(SEEDS)


def write(results: dict[str, dict]) -> None:
    sets = list(results)
    of_kind = COPIES * len(SEEDS)
    counts = ", ".join(f"{name} {results[name]['pictures']} pictures" for name in sets)
    lines = [
        "# Checks: what is found of what was planted",
        "",
        "Made by `python benchmarks/checks.py ../shared/data/hymenoptera`, default parameters;",
        f"EfficientNet-Lite0; {counts}. Splits drawn anew for each seed.",
        "",
        "## Nothing planted, ten drawings of the splits",
        "",
        row("", *sets),
        row("---", *["---"] * len(sets)),
        row("pairs called near-duplicates", *(results[s]["clean"]["pairs"] for s in sets)),
        row("pictures called suspects", *(results[s]["clean"]["suspects"] for s in sets)),
        row("splits called drifted, of 20", *(results[s]["clean"]["drifted"] for s in sets)),
        "",
        f"## Copies of training pictures in the test split: found, of {of_kind} of each kind",
        "",
        row("", *sets),
        row("---", *["---"] * len(sets)),
        *(row(kind, *(results[s]["copies"][0][kind] for s in sets)) for kind in DUPLICATES),
        row("pairs that nobody planted, three runs", *(results[s]["copies"][1] for s in sets)),
        "",
        "## Wrong labels: found / planted, and false alarms",
        "",
        row("", *(cell for s in sets for cell in (s, "false alarms"))),
        row("---", *["---"] * 2 * len(sets)),
    ]
    for rate in RATES:
        cells = []
        for name in sets:
            found = results[name]["labels"][rate]
            cells += [f"{found['found']} / {found['planted']}", found["false"]]
        runs = 20 if rate == "one picture" else len(SEEDS)
        lines.append(row(f"{rate}, {runs} runs", *cells))
    right = sum(found["right"] for name in sets for found in results[name]["labels"].values())
    found = sum(found["found"] for name in sets for found in results[name]["labels"].values())
    lines += [
        "",
        f"Of the {found} found, the right label was suggested for {right}. The real pictures may",
        "hold wrong labels of their own; those count as false alarms here.",
        "",
        f"## Changed test splits: found, of {len(SEEDS)}; unchanged validation splits called so",
        "",
        row("", *(cell for s in sets for cell in (s, "false alarms"))),
        row("---", *["---"] * 2 * len(sets)),
    ]
    for kind in DRIFTS:
        cells = [results[name]["drift"][kind][what] for name in sets for what in ("found", "false")]
        lines.append(row(kind, *cells))
    missed = [
        f"{what} {kind} ({', '.join(name for name, share in of_set if share < 0.5)})"
        for what, kinds in (("copies", DUPLICATES), ("a split", DRIFTS))
        for kind in kinds
        for of_set in [[(name, share_found(results[name], what, kind)) for name in sets]]
        if any(share < 0.5 for _, share in of_set)
    ]
    lines += ["", "Mostly not found:", "", *(f"- {line}" for line in missed), ""]
    (ROOT / "benchmarks" / "checks.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
