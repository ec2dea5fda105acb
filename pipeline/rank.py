"""Optional stage, rank: compare backbones on these examples.

Features come from the feature store if it has them, so a second comparison computes only the few
features with which it measures each backbone's speed.
"""

from dataclasses import replace

import pandas as pd

from . import kinds
from .backbones import exports
from .backbones.families import FAMILIES
from .core import command, params
from .core.backbone import Backbone
from .core.paths import MANIFEST, RANK, RANK_SPEED
from .evaluation import comparing
from .tables.manifest import task_in
from .transfer.comparison import Candidate, Compared, apart, compare


def rank() -> None:
    """Compare the candidates with cross-validation, and write two tables."""
    settings = params.load(kinds.schema)
    names, confidence = list(dict.fromkeys(settings.rank.backbones)), settings.rank.confidence
    extracting, power = settings.extract, settings.train.power
    found = compare(extracting, power, names, MANIFEST, confidence, "rank")
    best, *_ = found.candidates
    above = apart(found.candidates, best, confidence)
    measure, rows = comparing.measure(task_in(MANIFEST)), []
    for one in found.candidates:
        further = above.get(one.name)
        row = {"backbone": one.name, f"cv_{measure}": one.score.value}
        row |= {"low": one.score.low, "high": one.score.high, "loss": one.losses.mean()}
        row |= {
            "above_best": further.mean if further else 0.0,
            "above_low": further.low if further else None,
            "above_high": further.high if further else None,
            "p_value": further.p_value if further else None,
        }
        rows.append(row | {"weight_decay": one.weight_decay} | described(one, found))
        print(
            f"rank: {one.name}: {comparing.words(task_in(MANIFEST))} {one.score.value:.4f},"
            f" loss {one.losses.mean():.4f}, {one.milliseconds:.1f} ms per example"
        )
    RANK.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(RANK, index=False, float_format="%.6g", lineterminator="\n")
    costs = [(one.name, round(one.milliseconds, 2)) for one in found.candidates]
    timings = pd.DataFrame(costs, columns=["backbone", "milliseconds"])
    timings.to_csv(RANK_SPEED, index=False, lineterminator="\n")
    print_if_better(found.candidates, settings.extract.backbone, confidence)


def print_if_better(candidates: list[Candidate], current: str, confidence: float) -> None:
    """Print the best candidate if its loss is significantly lower than `extract.backbone`'s."""
    best, mine = candidates[0], [one for one in candidates if one.name == current]
    if not mine or best is mine[0]:
        return
    of_best = apart(candidates, mine[0], confidence)[best.name]
    if of_best.mean < 0 and of_best.p_value < 1 - confidence:
        print(
            f"rank: {best.name} is significantly better than extract.backbone {current}: its loss"
            f" is lower by {-of_best.high:.4f} to {-of_best.low:.4f} (p = {of_best.p_value:.2g},"
            " corrected for the number of backbones); `headstart choose` writes it into params.yaml"
        )


def described(one: Candidate, found: Compared) -> dict[str, object]:
    """Return a backbone's columns: features, input side, parameters, megabytes and licence."""
    networks = found.backbones[one.name].each
    parameters = sum(map(size, networks))
    sides = [getattr(found.engines[each].preprocessing, "crop", "") for each in networks]
    return {
        "features": one.dimension,
        "pixels": sides[0] if len(sides) == 1 else "+".join(map(str, sides)),
        "parameters": parameters,
        "megabytes": round(4 * parameters / 1e6, 1),  # as float32
        "licence": ", ".join(dict.fromkeys(map(exports.licence, networks))),
    }


def size(network: Backbone) -> int:
    """Return the number of parameters of a network, which does not depend on its weights."""
    if FAMILIES[network.family].is_graph(network):
        return exports.parameters(exports.exported(network))
    if network.needs != "torch":
        return exports.trained(exports.exported(network))
    from .backbones import catalogue

    weights = "pretrained" if network.family == "python" else "random"
    module = catalogue.load(replace(network, weights=weights, pooling="auto")).module
    return sum(tensor.numel() for tensor in module.parameters())


if __name__ == "__main__":
    command.run(rank)
