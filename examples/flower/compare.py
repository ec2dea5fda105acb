"""Print the accuracy of FedAvg's head beside that of the joined head, on `sites/test.npz`.

    python ../../flower/compare.py

It runs with Headstart's packages in the folder where `sites.py` and `loopback.py` ran. The joined
head is that of `headstart federate`: ridge, solved from the sums of all sites in one exchange.
"""

from pathlib import Path

import numpy as np

from pipeline.federated import sums

DECAYS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # the best by generalised cross-validation


def compare() -> None:
    """Print a line for each head."""
    parts, folder = [], Path("sites")
    for file in sorted(folder.glob("site-*.npz")):
        with np.load(file) as site:
            own, labels = np.unique(site["labels"], return_inverse=True)
            parts.append(sums.of(site["features"], labels, own.tolist()))
    whole = sums.joined(parts)
    joined = sums.ridge(whole, DECAYS)[sums.best(whole, DECAYS)]
    with np.load(folder / "test.npz") as test, np.load(folder / "head.npz") as head:
        features, wanted = test["features"], test["labels"]
        answers = {
            "FedAvg": head["classes"][(features @ head["weight"].T + head["bias"]).argmax(axis=1)],
            "joined": np.array(joined.classes)[joined.logits(features).argmax(axis=1)],
        }
    for name, found in answers.items():
        right = int((found == wanted).sum())
        print(f"compare: {name} {right / len(wanted):.4f} ({right} of {len(wanted)} test examples)")


if __name__ == "__main__":
    compare()
