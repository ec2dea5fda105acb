"""Stage 2, augment: plan the views of every training example, and draw a contact sheet."""

import pandas as pd

from . import kinds
from .core import command, params
from .core.paths import CONTACT_SHEET, MANIFEST, PLAN
from .tables.manifest import kind_in, read_manifest


def augment() -> None:
    """Read the manifest, write the plan, and draw the contact sheet."""
    settings = params.load(kinds.schema).augment
    manifest = read_manifest(MANIFEST)
    kind = kinds.named(kind_in(MANIFEST))
    training: pd.DataFrame = manifest[manifest["split"] == "train"]

    plan = kind.plan(training["digest"].tolist(), settings)
    plan.to_parquet(PLAN, index=False)
    CONTACT_SHEET.parent.mkdir(parents=True, exist_ok=True)
    kind.contact_sheet(training, plan, CONTACT_SHEET)
    print(
        f"augment: planned {settings.views} views of each of {len(training)} training {kind.nouns}"
    )


if __name__ == "__main__":
    command.run(augment)
