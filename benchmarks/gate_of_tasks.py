"""The gate of several labels and of numbers, simulated, as `benchmarks gate` does for one label.

    python -m benchmarks gate_of_tasks [--draws DRAWS]

Two models answer about the same made-up test examples. Nine tenths of the noise in their answers is
the same for both. First both are as good, then the new one is better.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.harness import table
from pipeline.evaluation import measure as meaning
from pipeline.evaluation.paired import Comparison, compare

LABELS, COMMON = 3, 0.9
EXAMPLES = (50, 150)
Models = tuple[pd.DataFrame, pd.DataFrame]


def of_labels(skills: tuple[float, float], examples: int, generator: np.random.Generator) -> Models:
    """Answers with several labels, of which a quarter is there and a tenth is not known."""
    given = (generator.random((examples, LABELS)) < 0.25).astype(float)
    shared = generator.standard_normal(given.shape)
    unknown = generator.random(given.shape) < 0.1
    found = []
    for skill in skills:
        own = generator.standard_normal(given.shape)
        evidence = np.sqrt(COMMON) * shared + np.sqrt(1 - COMMON) * own + skill * (2 * given - 1)
        shares = 1 / (1 + np.exp(np.log(3) - 2 * skill * evidence))  # as sure as it should be
        answers = pd.DataFrame(shares, columns=[f"p({number})" for number in range(LABELS)])
        answers["label"] = ""
        answers["predicted"] = ["|".join(map(str, np.flatnonzero(row > 0.4))) for row in shares]
        for number, column in enumerate(np.where(unknown, np.nan, given).T):
            answers[f"target:{number}"] = column
        found.append(answers)
    return found[0], found[1]


def of_numbers(
    errors: tuple[float, float], examples: int, generator: np.random.Generator
) -> Models:
    """Answers with a number; the errors have the heavy tails of Student's t, 4 degrees."""
    target = generator.standard_normal(examples)
    shared = generator.standard_t(4, examples)
    found = []
    for error in errors:
        own = generator.standard_t(4, examples)
        noise = error * (np.sqrt(COMMON) * shared + np.sqrt(1 - COMMON) * own)
        answers = {"label": "", "target:x": target, "predicted(x)": target + noise}
        found.append(pd.DataFrame(answers))
    return found[0], found[1]


CASES: list[tuple[str, Callable[..., Models], tuple[float, float]]] = [
    ("mean_average_precision", of_labels, (1.0, 1.2)),
    ("micro_f1", of_labels, (1.0, 1.2)),
    ("macro_f1", of_labels, (1.0, 1.2)),
    ("exact_match", of_labels, (1.0, 1.2)),
    ("mae", of_numbers, (0.6, 0.5)),
    ("rmse", of_numbers, (0.6, 0.5)),
    ("r2", of_numbers, (0.6, 0.5)),
]


def measure(draws: int = 300) -> str:
    rows = []
    for examples in EXAMPLES:
        for name, drawn, (old, new) in CASES:
            generator = np.random.default_rng(examples)

            def ask(one: float) -> Comparison:
                models = drawn((old, one), examples, generator)  # noqa: B023
                task = "multilabel" if drawn is of_labels else "regression"  # noqa: B023
                lower = meaning(name).lower_is_better  # noqa: B023
                said = compare(*models, name, lower, 0.03, 15, task=task)  # noqa: B023
                assert said is not None
                return said

            equal = [ask(old).answer != "cannot tell" for _ in range(draws)]
            better = [ask(new).answer for _ in range(draws)]
            low, high = stats.binomtest(sum(equal), draws).proportion_ci()
            shares = (np.mean([said == word for said in better]) for word in ("better", "worse"))
            rows.append((name, examples, np.mean(equal), f"{low:.3f}–{high:.3f}", *shares))
            print(rows[-1], flush=True)
    columns = "measure | examples | equal, called different {:.3f} | 95 % interval"
    columns += " | better, called better {:.2f} | better, called worse {:.3f}"
    return f"""# The gate of several labels and of numbers, simulated

{draws:,} draws of each case. Equal models are to be called different in at most 0.05 of them, and a
better model is never to be called worse. The errors of numbers have heavy tails (Student's t, 4
degrees of freedom).

{table(columns, rows)}
"""
