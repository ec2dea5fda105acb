"""Backbones: which families run here."""

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import CORES, PHOTOGRAPHS, table
from pipeline import kinds
from pipeline.backbones import catalogue, exports
from pipeline.backbones.engines import Engine, open_engine
from pipeline.backbones.onnx_export import map_source
from pipeline.backbones.pooling import last
from pipeline.core.backbone import Backbone
from pipeline.core.params import ExtractParams

FAMILIES = (
    ("EfficientNet-Lite", "efficientnet_lite0", "auto"),
    ("MobileNetV4", "timm:mobilenetv4_conv_small.e2400_r224_in1k", "auto"),
    ("ConvNeXt", "timm:convnext_atto.d2_in1k", "auto"),
    ("EVA-02", "timm:eva02_tiny_patch14_224.mim_in22k", "auto"),
    ("DINOv3", "timm:vit_small_patch16_dinov3.lvd1689m", "auto"),
    ("DINOv3", "timm:vit_small_patch16_dinov3.lvd1689m", "class_mean"),
    ("DINOv2", "timm:vit_small_patch14_dinov2.lvd142m", "auto"),
    ("CLIP", "timm:vit_base_patch32_clip_224.openai", "auto"),
    ("SigLIP 2", "timm:vit_base_patch32_siglip_256.v2_webli", "auto"),
)
VIEWS = 4  # that each core looks at when timed


def measure(scratch: Path) -> str:
    """Which families of backbones run here, what do they cost, and are their exports equal to
    PyTorch?

    The smallest variant of each family, by timm's name, with random weights (there is no hub here):
    the figures tell of size, speed and equality, and nothing of how well their features tell
    classes apart. Each is exported to ONNX as `extract` does it. Features of four photographs are
    compared with those that PyTorch computes; views a second are those of ONNX Runtime on all
    cores, without decoding.
    """
    os.environ["HEADSTART_STORE"] = str(scratch / "features")
    rows = []
    for family, name, pooling in FAMILIES:
        rows.append(one(family, name, pooling))
        print(*rows[-1], flush=True)
        for file in (scratch / "features").rglob("*.*"):  # some are of hundreds of megabytes
            if file.suffix in (".onnx", ".safetensors"):
                file.unlink()
    columns = (
        "family | backbone | pooling | parameters (million) {:.1f} | pixels a side {:d}"
        " | features {:d} | ends in | class maps | views a second {:.1f}"
        " | largest feature {:.3g} | largest difference {:.1e} | licence of the weights"
    )
    return PAGE.format(table=table(columns, rows), cores=CORES)


PAGE = """# Families of backbones

The smallest variant of each family, with random weights. Views a second: ONNX Runtime on {cores}
cores, float32, without decoding. The difference is the largest one between a feature of the export
and of PyTorch, over four photographs. The licence is that of the trained weights as timm states it.

{table}
"""


def one(family: str, name: str, pooling: str) -> tuple[object, ...]:
    """A row of the table."""
    backbone = catalogue.load(Backbone.parse(name, "random", pooling))
    asked = ExtractParams(backbone=name, weights="random", pooling=pooling, engine="onnxruntime")  # type: ignore[arg-type]
    engine = open_engine(asked, kinds.named("image"))
    seen = photographs(engine)
    found = engine.run(seen)
    with torch.inference_mode():
        wanted = backbone.module(torch.from_numpy(seen)).numpy()
        end = last(network_of(backbone), torch.zeros(1, 3, *seen.shape[1:3]))
    return (
        family,
        f"`{name}`",
        pooling,
        sum(tensor.numel() for tensor in backbone.module.parameters()) / 1e6,
        backbone.preprocessing.crop,
        backbone.dimension,
        "tokens" if end is not None and end.ndim == 3 else "maps",
        "yes" if map_source(backbone) else "no",
        speed(engine, seen),
        float(np.abs(wanted).max()),
        float(np.abs(found - wanted).max()),
        exports.licence(Backbone.parse(name)),
    )


def network_of(backbone: catalogue.TorchBackbone) -> torch.nn.Module:
    """The network as timm made it."""
    network: Any = backbone.module.network
    found: torch.nn.Module = getattr(network, "network", network)
    return found


def photographs(engine: Engine) -> NDArray[np.uint8]:
    """Four photographs as the backbone takes them."""
    asked = []
    for name in PHOTOGRAPHS[:4]:
        file = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).save(file, "PNG")
        asked.append((file.getvalue(), [engine.kind.original]))
    seen: NDArray[np.uint8] = engine.make_views(asked)
    return seen


def speed(engine: Engine, seen: NDArray[np.uint8]) -> float:
    """Views a second on all cores, the best of three goes."""
    batch = seen[np.arange(VIEWS) % len(seen)]
    seconds = []
    with ThreadPoolExecutor(CORES) as pool:
        for _ in range(3):
            start = time.monotonic()
            list(pool.map(engine.run, [batch] * CORES))
            seconds.append(time.monotonic() - start)
    return VIEWS * CORES / min(seconds)
