"""The class of each example, which is the manifest's label; there are no columns of targets."""

from collections.abc import Sequence

import pandas as pd

from ...core.errors import DataError
from ...tables.labels import class_names
from ...tables.targets import stop_at_numbers


class ClassTargets:
    """Implements `Targets` for classification."""

    def read(
        self, label: str, columns: Sequence[str], cells: Sequence[str]
    ) -> tuple[str, tuple[float, ...]]:
        """Return the label unchanged."""
        return label, ()

    def table(
        self, labels: Sequence[str], values: Sequence[tuple[float, ...]], columns: Sequence[str]
    ) -> dict[str, list[float]]:
        """Return no columns, because classification has no columns of targets."""
        return {}

    def require(self, manifest: pd.DataFrame, source: str) -> None:
        """Check that there are two classes or more, each with a training example."""
        labels = sorted(set(manifest["label"]))
        stop_at_numbers(labels, len(manifest))
        if len(labels) < 2:
            raise DataError(
                f"{source} holds examples of {len(labels)} class"
                f" ({', '.join(labels) or 'none'}); a classifier needs two or more"
            )
        class_names(manifest)

    def taught(
        self, manifest: pd.DataFrame
    ) -> tuple[pd.DataFrame, list[str], list[tuple[str, str]]]:
        """Leave out the classes without training examples, and their examples."""
        rest = set(manifest["label"][manifest["split"] == "train"])
        out = sorted(set(manifest["label"]) - rest)
        if not out or not rest:
            return manifest, [], []
        stays = manifest["label"].isin(rest)
        gone = manifest[["path", "label"]][~stays].itertuples(index=False)
        why = [(path, f"no training example is labelled {label}") for path, label in gone]
        return manifest[stays].reset_index(drop=True), out, why

    def counts(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """Return the number of examples of each class."""
        return manifest.groupby(["label", "split"]).size().unstack(fill_value=0)


PART = ClassTargets()
