"""The stages up to the checks, without DVC: the classic recipe."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline.augment import augment
from pipeline.checks import checks
from pipeline.core.paths import HEAD, HEAD_WEIGHTS, METRICS, TRAINING
from pipeline.evaluate import evaluate
from pipeline.extract import extract
from pipeline.heads.head import load_head
from pipeline.ingest import ingest
from pipeline.train import train
from tests.conftest import ROOT, Project

STAGES = (ingest, augment, extract, train, evaluate, checks)


@pytest.mark.slow
def test_the_classic_recipe_as_documented(
    project: Project, draw_shapes: Callable[..., None]
) -> None:
    recipe = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "classic.md").read_text(), re.S)
    assert recipe
    document = yaml.safe_load(Path("params.yaml").read_text())
    document |= yaml.safe_load(recipe[1])
    document["extract"]["weights"] = "random"  # there is no network
    document["ingest"] |= {"source": "folder", "path": "data/raw/shapes"}
    document["augment"]["views"] = 0
    Path("params.yaml").write_text(yaml.safe_dump(document))
    draw_shapes(range(24))

    for stage in STAGES:
        stage()

    head, about = load_head(HEAD_WEIGHTS, HEAD)
    assert (head.dimension, head.width, len(head.bias)) == (2048, 1024, 2)
    assert about.hyperparameters.optimizer == "adam"
    assert len(pd.read_csv(TRAINING)) == 10
    measured = json.loads(METRICS.read_text())["test"]
    assert measured["loss"] > 0
    assert 0 <= measured["accuracy"] <= 1
