"""Compute the features of the floor, which `tables/floor.py` keeps."""

import numpy as np
import pandas as pd

from ..backbones.engines import Encoder, open_engine
from ..core.params import ExtractParams
from ..kinds import Kind
from ..store.interface import Store
from ..tables import floor
from .wanted import vectors


def write(manifest: pd.DataFrame, kind: Kind, settings: ExtractParams, cache: Store) -> str:
    """Write the floor's features; return a line about them, empty if there is no floor.

    There is none if the kind has none, if the backbone is the floor itself, or if the project's
    `dvc.yaml` is older and does not declare the features.

    Args:
        settings: the parameters of `extract`; only the backbone and the batch size are used.
        cache: the store of this run.
    """
    if not floor.is_declared():
        return ""
    if kind.floor in ("", settings.backbone):
        floor.write("", [], np.zeros((0, 0), np.float32))
        return ""
    on_cpu = ExtractParams(
        backbone=kind.floor, engine="onnxruntime", device="cpu", batch_size=settings.batch_size
    )
    encoder = Encoder((open_engine(on_cpu, kind),))
    rows, features, computed = vectors(floor.chosen(manifest), encoder, settings.batch_size, cache)
    floor.write(kind.floor, rows["digest"].tolist(), features)
    return f"the floor, {kind.floor}: {len(rows) - computed} views reused, {computed} computed"
