"""Views and features by PyTorch's path for GPUs: on one if there is one, else on the CPU.

`cpu:0` is the CPU too, but not the `cpu` of `extract.device`: so every line of that path runs.
"""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from pipeline import kinds
from pipeline.backbones import catalogue
from pipeline.backbones.catalogue import TorchBackbone
from pipeline.backbones.engines.on_torch import on_torch
from pipeline.core import params
from pipeline.core.backbone import Backbone
from pipeline.core.errors import DeviceError
from pipeline.kinds import Fitted, Pixels
from pipeline.kinds.image import gpu
from pipeline.kinds.image.views import ORIGINAL, View

HAS_CUDA = torch.cuda.is_available()
DEVICE = "cuda" if HAS_CUDA else "cpu:0"
SCALE = ((0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
SMALL, BILINEAR = (Pixels(64, 56, name, *SCALE) for name in ("bicubic", "bilinear"))
IMAGE = kinds.named("image")
PLAN = [
    ORIGINAL, View(hflip=True), View(vflip=True), View(-180), View(13, 1.08),
    View(-7.5, 0.93, True, True), View(90, 0.6), View(45, 1.3, False, True), View(0.1),
]  # fmt: skip
EXACT = 3  # of these views are copies


def encoded(picture, form="PNG"):
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


@pytest.fixture(scope="module")
def files():
    """A cup of coffee in several sizes and formats, a panorama among them."""
    whole = Image.fromarray(skimage.data.coffee())
    sizes = [(64, 64), (91, 64), (64, 80), (500, 375), (300, 900), (900, 100), (235, 224)]
    return [encoded(whole.resize(size), ("PNG", "JPEG")[i % 2]) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "preprocessing", [SMALL, BILINEAR, Fitted(224, 224, "bicubic", *SCALE, "border")]
)
def test_views_are_those_of_the_cpu_to_a_grey_level(files, preprocessing):
    asked = [(data, [tuple(view) for view in PLAN]) for data in files]
    maker = IMAGE.inputs(preprocessing, DEVICE)
    assert isinstance(maker, gpu.ViewMaker)
    seen = maker(asked).cpu().numpy().astype(int)
    difference = np.abs(seen - IMAGE.inputs(preprocessing, "cpu")(asked))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert not difference.reshape(len(files), len(PLAN), -1)[:, :EXACT].any()
    alone = np.concatenate([maker([one]).cpu().numpy() for one in asked])
    np.testing.assert_array_equal(seen, alone)


def opened(device, monkeypatch, **changes):
    """The engine on a device, whose card has a name even if there is none."""
    if not HAS_CUDA:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    asked = params.load(kinds.schema).extract.model_copy(update={"batch_size": 4} | changes)
    return on_torch(catalogue.load(Backbone.parse("efficientnet_lite0")), asked, IMAGE, device)


@pytest.mark.parametrize(
    ("precision", "bound"),
    [
        pytest.param("float32", 0.9999, marks=pytest.mark.slow),
        pytest.param("bfloat16", 0.98, marks=pytest.mark.slow),
        pytest.param(
            "float16", 0.999, marks=pytest.mark.skipif(not HAS_CUDA, reason="slow on a CPU")
        ),
    ],
)
def test_features_are_those_of_the_cpu(project, files, precision, bound, monkeypatch):
    plain, engine = opened("cpu", monkeypatch), opened(DEVICE, monkeypatch, precision=precision)
    asked = [(data, PLAN[::2]) for data in files[::2]]
    wanted = plain.features(plain.make_views(asked), 4)
    made = engine.features(engine.make_views(asked), 4)
    norms = np.linalg.norm(made, axis=1) * np.linalg.norm(wanted, axis=1)
    assert ((made * wanted).sum(axis=1) / norms).min() > bound
    with ThreadPoolExecutor(4) as pool:  # the same bits in any company
        alone = list(pool.map(lambda one: engine.run(engine.make_views([one])), asked))
    np.testing.assert_array_equal(made, np.concatenate(alone))


def test_what_changes_numbers_is_in_the_fingerprint(project, monkeypatch):
    changes = [{}, {"precision": "bfloat16"}, {"batch_size": 2}]
    engines = [opened(DEVICE, monkeypatch, **one) for one in changes]
    engines.append(opened("cpu", monkeypatch))
    assert len({engine.fingerprint for engine in engines}) == 4
    assert opened(DEVICE, monkeypatch).fingerprint == engines[0].fingerprint
    assert [engine.on_gpu for engine in engines] == [True, True, True, False]
    assert f"gpu views {gpu.GPU_VIEW_CODE}" in engines[0].fingerprint
    assert "gpu views" not in engines[-1].fingerprint


def test_memory_that_runs_out_halves_the_batch(project, files, monkeypatch, capsys):
    class Large(torch.nn.Module):
        """A network for whose batches memory suffices up to a limit."""

        def forward(self, pictures):
            if len(pictures) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return pictures.float().mean(dim=(1, 2))

    limit = 3
    found = TorchBackbone(Large(), SMALL, 3, "large")
    monkeypatch.setattr(catalogue, "load", lambda _: found)
    engine = opened(DEVICE, monkeypatch, batch_size=9)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "extract: GPU memory ran out; continuing with 2 views at a time"
    assert len(printed) == 2
    assert "batch 2 " in engine.fingerprint
    seen = engine.make_views([(files[0], PLAN)])
    wanted = seen.cpu().numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(engine.features(seen, 9), wanted, rtol=1e-5)

    limit = 0
    one_line = r"GPU memory ran out; .*extract\.device: cpu"
    with pytest.raises(DeviceError, match=one_line):
        engine.features(seen, 9)
    with pytest.raises(DeviceError, match=one_line):
        opened(DEVICE, monkeypatch)

    class TooLarge(Large):
        def to(self, *_, **__):
            raise torch.OutOfMemoryError("CUDA out of memory")

    tried = TorchBackbone(TooLarge(), SMALL, 3, "large")
    monkeypatch.setattr(catalogue, "load", lambda _: tried)
    with pytest.raises(DeviceError, match=one_line):
        opened(DEVICE, monkeypatch)
    monkeypatch.setattr(gpu, "warp", lambda *_: Large()(seen))
    with pytest.raises(DeviceError, match=one_line):
        engine.make_views([(files[0], PLAN)])
