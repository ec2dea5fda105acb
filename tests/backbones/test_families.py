"""The families of `benchmarks/backbones.md`: each loads by timm's name, and its export is equal."""

import numpy as np
import pytest
import torch

from benchmarks.backbones import FAMILIES, network_of
from benchmarks.harness import ROOT
from pipeline import kinds
from pipeline.backbones import catalogue, exports
from pipeline.backbones.engines.on_onnxruntime import on_export
from pipeline.backbones.pooling import last
from pipeline.core.backbone import Backbone

SMALL = ("MobileNetV4", "ConvNeXt")  # exported in seconds
TOKENS = ("EVA-02", "DINOv3", "DINOv2", "CLIP", "SigLIP 2")


def test_the_page_has_a_row_for_each() -> None:
    rows = (ROOT / "benchmarks" / "backbones.md").read_text().splitlines()
    for family, name, pooling in FAMILIES:
        assert any(row.startswith(f"| {family} | `{name}` | {pooling} |") for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name", "pooling"), FAMILIES)
def test_it_loads_by_name_and_ends_as_the_page_says(family: str, name: str, pooling: str) -> None:
    backbone = catalogue.load(Backbone.parse(name, "random", pooling))
    side = backbone.preprocessing.crop
    with torch.inference_mode():
        end = last(network_of(backbone), torch.zeros(1, 3, side, side))
    assert end is not None
    assert (end.ndim == 3) == (family in TOKENS)
    widths = 2 if pooling == "class_mean" else 1
    assert backbone.dimension == widths * end.shape[2 if end.ndim == 3 else 1] or (
        family == "MobileNetV4"  # which goes on after pooling
    )
    assert exports.licence(Backbone.parse(name)) in ("apache-2.0", "mit", "dinov3-license")


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_its_export_is_equal(
    family: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", f"{tmp_path}/features")
    name = next(name for one, name, _ in FAMILIES if one == family)
    backbone = catalogue.load(Backbone.parse(name, "random"))
    engine = on_export(exports.exported(Backbone.parse(name, "random")), kinds.named("image"))
    side = backbone.preprocessing.crop
    seen = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = backbone.module(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(engine.run(seen), wanted, atol=1e-5 * float(np.abs(wanted).max()))
