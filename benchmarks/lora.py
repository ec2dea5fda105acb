"""What finetuning an encoder of texts is worth: its last blocks, or LoRA, beside a frozen head.

    python -m benchmarks lora --part 250 --seed 3

works out one number of titles under one seed; the parts are kept in `benchmarks/lora.json`, and
without a part only the table is written. The titles are those of `benchmarks/text.py`: a seed draws
the test titles and the order of the others, of which the first so many are learned from, a fifth of
them for validation. The stages are run with `examples/text/params.yaml`; the learning rates were
chosen on the validation titles of another draw (seed 100).
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import ROOT, Project, cost, table
from benchmarks.text import interval, titles
from pipeline.backbones import catalogue
from pipeline.core.backbone import Backbone
from pipeline.core.params import FinetuneParams
from pipeline.heads.head import Head
from pipeline.transfer import finetuning, lora
from pipeline.transfer.network import Network
from pipeline.transfer.recipe import Recipe

SIZES = (50, 250)
MOST = 1780
WAYS: dict[str, dict[str, Any]] = {
    "blocks": {"method": "blocks", "learning_rate": 1e-4},
    "lora": {"method": "lora", "learning_rate": 3e-3},
}
NAMES = {"blocks": "the last three blocks", "lora": "LoRA of rank 8"}


def made(size: int, seed: int, scratch: Path) -> Project:
    """A project of that many titles to learn from, up to what `evaluate` and `bundle` need."""
    kept, _ = titles()
    drawn = np.random.default_rng(seed).permutation(len(kept))
    learnt = drawn[:size]
    split = dict.fromkeys(learnt[: size // 5], "val") | dict.fromkeys(learnt[size // 5 :], "train")
    split |= dict.fromkeys(drawn[MOST:], "test")
    project = Project(scratch)
    with (project.folder / "data" / "raw" / "titles.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label", "split"])
        rows.writerows([*kept[number], name] for number, name in split.items())
    (project.folder / "plugins").mkdir()
    text = (ROOT / "examples" / "text" / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text)
    project.set(evaluate={"bootstrap": 10})
    return project


def figures(size: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Test accuracies and losses of the ways of one draw, and what each took."""
    project = made(size, seed, scratch)
    found: dict[str, Any] = {}
    with project.inside():
        project.work("ingest", "augment", "extract", "train", "evaluate")
        found["frozen"] = project.report("metrics")["test"]["accuracy"]
        for way, settings in WAYS.items():
            project.set(finetune=settings)
            took = cost(lambda: project.work("finetune"))
            report = project.report("finetune")
            alone = {name: report["test"][name] for name in ("frozen", "finetuned")}
            taken = report["taken"]
            found[way] = {
                "taken": taken,
                "epoch": report["epoch"],
                "alone": {name: test["accuracy"] for name, test in alone.items()},
                "loss": {name: test["loss"] for name, test in alone.items()},
                "chosen": report["test"]["refit"]["accuracy"] if taken else found["frozen"],
                "wall": took.wall,
                "cpu": took.cpu,
            }
    return found


def megabytes() -> dict[str, tuple[int, float]]:
    """How many numbers of the backbone each way trains, and megabytes of what a checkpoint keeps.

    A checkpoint holds each number that learns four times: as it is, of the best epoch, and AdamW's
    two moments.
    """
    found = {}
    for way, settings in WAYS.items():
        backbone = catalogue.to_train(Backbone.parse("minilm_l6_v2"))
        head = Head(np.zeros((5, backbone.dimension), np.float32), np.zeros(5, np.float32))
        recipe = Recipe.of(FinetuneParams(**settings), np.ones(5, np.float32))
        network = Network(backbone.module, head, 1.0)
        if settings["method"] == "lora":
            lora.insert(network.backbone, recipe.lora_rank, recipe.seed)
        changing, _ = finetuning._unfrozen(network, recipe)
        count = sum(tensor.numel() for tensor in changing.values())
        found[way] = count, 4 * 4 * count / 1e6
    return found


def measure(page: Path, scratch: Path, part: int = 0, seed: int = 0) -> str:
    file = page.with_suffix(".json")
    known = json.loads(file.read_text()) if file.exists() else {}
    if part:
        torch.set_num_threads(1)
        known[f"{part} {seed}"] = figures(part, seed, scratch)
        file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    accuracies: list[tuple[object, ...]] = []
    gains: list[tuple[object, ...]] = []
    losing: list[tuple[object, ...]] = []
    costs: list[tuple[object, ...]] = []
    sizes, rates = megabytes(), {way: settings["learning_rate"] for way, settings in WAYS.items()}
    for size in SIZES:
        draws = {key: row for key, row in sorted(known.items()) if key.startswith(f"{size} ")}
        if not draws:
            continue
        frozen = np.array([row["frozen"] for row in draws.values()])
        before = np.array([row["lora"]["alone"]["frozen"] for row in draws.values()])
        accuracies.append((f"{size}", "frozen", len(draws), before.mean(), frozen.mean(), None))
        learned, chosen = {}, {}
        for way, name in NAMES.items():
            of_way = [row[way] for row in draws.values()]
            alone = np.array([row["alone"]["finetuned"] for row in of_way])
            chosen[way] = np.array([row["chosen"] for row in of_way])
            taken = sum(row["taken"] for row in of_way)
            accuracies.append(
                (f"{size}", name, len(draws), alone.mean(), chosen[way].mean(), f"{taken}")
            )
            gains.append((f"{size}", f"{name} over frozen", interval(alone - before),
                          interval(chosen[way] - frozen)))  # fmt: skip
            wall, cpu = (np.median([row[key] for row in of_way]) for key in ("wall", "cpu"))
            costs.append((f"{size}", name, wall, cpu, f"{sizes[way][0]:,}", sizes[way][1]))
            for key, row in zip(draws, of_way, strict=True):
                was, now = row["alone"]["frozen"], row["alone"]["finetuned"]
                if now < was or row["chosen"] < draws[key]["frozen"]:
                    losing.append((key, name, was, now, draws[key]["frozen"], row["chosen"],
                                   "yes" if row["taken"] else "no"))  # fmt: skip
            learned[way] = alone
        pair = [interval(of["lora"] - of["blocks"]) for of in (learned, chosen)]
        gains.append((f"{size}", "LoRA over the last three blocks", *pair))
    accuracy = (
        "titles | way | seeds | learned from training titles {:.3f} | as a bundle {:.3f} | taken"
    )
    took = (
        "titles | way | seconds {:.0f} | of the processor {:.0f} | numbers that learn"
        " | checkpoint, MB {:.1f}"
    )
    lost = (
        "titles and seed | way | frozen {:.3f} | finetuned {:.3f} | bundle {:.3f} | best {:.3f}"
        " | taken"
    )
    return f"""# Finetuning an encoder of texts

MiniLM-L6 on the titles of BBC news, five topics, 314 test titles drawn again by each seed;
`examples/text/params.yaml`, 10 epochs in batches of 32, learning rate {rates["blocks"]:g} for
blocks and {rates["lora"]:g} for LoRA. These had the lowest validation loss of 0.00003, 0.0001 and
0.0003, and of 0.0003, 0.001 and 0.003, on one draw of 250 titles that is not below. A fifth of the
titles is for validation. The first accuracy is that of a network, or of the frozen
one's head, that learned from training titles alone. `As a bundle` is what `bundle` (frozen) and
`best` hold: they learned from validation titles too, and `best` is the finetuned network only where
validation said so (`taken`).

{table(accuracy, accuracies)}

Differences in accuracy on the same titles: means over the seeds, and their 95 % intervals by
Student's t:

{table("titles | what | learned from training titles | as a bundle", gains)}

What `finetune` took, without the start of Python: medians, on one thread. Other work ran on the
same cores (a load of 9 to 20 on two), so that only seconds of the processor compare. It trains
twice where the network is taken. A checkpoint holds each trained number four times (now, the best,
AdamW's moments).

{table(took, costs)}

Every draw in which finetuning lost accuracy on the test titles, in either of both comparisons:

{table(lost, losing) if losing else "None."}
"""
