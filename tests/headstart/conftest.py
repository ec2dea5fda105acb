"""A project for the commands."""

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import Project


@pytest.fixture
def vectors(project: Project) -> Project:
    """A project of vectors with 60 labelled examples of two classes, and a pool of 200 others."""
    project.set(**{"ingest.kind": "vector", "ingest.source": "parquet"})
    project.set(**{"ingest.path": "data/raw/table.parquet", "extract.backbone": "identity"})
    file = project.folder / "params.yaml"
    document = yaml.safe_load(file.read_text()) | {"augment": {"views": 0}}
    document["evaluate"]["bootstrap"] = 10
    file.write_text(yaml.safe_dump(document))
    random = np.random.default_rng(0)
    labels = np.arange(260) % 2
    table = pd.DataFrame({"key": [f"item {number}" for number in range(260)]})
    points = random.standard_normal((260, 6)).astype(np.float32)
    points[:, 0] += 3 * labels
    table["vector"], table["label"] = points.tolist(), np.array(["left", "right"])[labels]
    table[:60].to_parquet("data/raw/table.parquet")
    table[50:].drop(columns="label").to_parquet("data/pool.parquet")
    return project
