"""The graphs before and behind the backbone do what Pillow and the head do; PyTorch's form too."""

import io

import numpy as np
import onnxruntime
import pytest
import skimage.data
import torch
from PIL import Image

from pipeline.heads.head import Head, probabilities
from pipeline.kinds import Preprocessing
from pipeline.kinds.image import onnx_input, preprocess, torch_input
from pipeline.serving import onnx_graph
from pipeline.tables.power import raised

GENERATOR = np.random.default_rng(0)
EVEN = (0.5,) * 3
BICUBIC = Preprocessing(256, 224, "bicubic", EVEN, EVEN)
BILINEAR = Preprocessing(232, 224, "bilinear", EVEN, EVEN)
CROP_IS_LARGER = Preprocessing(200, 240, "bicubic", EVEN, EVEN)
# Width and height: enlarged and shrunk, wide and tall, cut as panoramas, and of a base's own size.
SIZES = [
    (224, 224), (341, 256), (256, 767), (769, 256), (5, 7), (500, 375), (375, 500), (255, 257),
    (1000, 100), (100, 1000), (257, 900), (404, 875), (26, 554),
]  # fmt: skip


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString())


def seen_by_pillow(picture, preprocessing):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return preprocess.crop(
        preprocess.base(file.getvalue(), preprocessing), preprocessing.crop
    ).astype(int)


@pytest.mark.parametrize("preprocessing", [BICUBIC, BILINEAR, CROP_IS_LARGER])
def test_any_size_is_scaled_and_cropped_as_by_pillow(preprocessing):
    graph = session(onnx_input.graph(preprocessing))
    whole = Image.fromarray(skimage.data.coffee())
    for size in SIZES:
        picture = whole.resize(size)
        pixels = np.asarray(picture)
        (found,) = graph.run(None, {"picture": pixels})[0].astype(int)
        wrong = np.abs(found - seen_by_pillow(picture, preprocessing))
        # Bilinear weights can mix bytes half and half, which may be rounded either way, twice.
        most, share = (2, 0.03) if preprocessing is BILINEAR else (1, 0.001)
        assert wrong.max() <= most, size
        assert (wrong > 0).mean() < share, size
        in_torch = torch_input.preprocess(torch.from_numpy(pixels.copy()), preprocessing).numpy()
        assert (in_torch != found).mean() < 0.001, size
        assert np.abs(in_torch - found).max() <= 1, size


@pytest.mark.parametrize("size", [(256, 256), (300, 256), (256, 768)])
def test_a_base_is_only_cropped(size):
    pixels = GENERATOR.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    (found,) = session(onnx_input.graph(BICUBIC)).run(None, {"picture": pixels})[0]
    np.testing.assert_array_equal(found, preprocess.crop(pixels, 224))


@pytest.mark.parametrize("width", [0, 6])
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_features_become_the_probabilities_of_the_head(width, power):
    def floats(*shape):
        return GENERATOR.standard_normal(shape).astype(np.float32)

    hidden = (floats(width, 8), floats(width)) if width else ()
    head = Head(floats(5, width or 8), floats(5), *hidden)
    pooled = floats(1, 8)
    graph = session(onnx_graph.answer_graph(head, power, 1.7))
    shares, features = graph.run(["probabilities", "features"], {"pooled": pooled})
    np.testing.assert_allclose(features, raised(pooled, power)[0], rtol=1e-5)
    wanted = probabilities(head.logits(raised(pooled, power)), 1.7)[0]
    np.testing.assert_allclose(shares, wanted, atol=1e-6)


@pytest.mark.parametrize("width", [0, 6])
def test_several_labels_and_numbers_are_those_of_the_head(width):
    def floats(*shape):
        return GENERATOR.standard_normal(shape).astype(np.float32)

    hidden = (floats(width, 8), floats(width)) if width else ()
    head = Head(floats(5, width or 8), floats(5), *hidden)
    pooled = floats(1, 8)
    logits = head.logits(raised(pooled, 0.5))[0]
    graph = session(onnx_graph.answer_graph(head, 0.5, 1.7, "multilabel"))
    (shares,) = graph.run(["probabilities"], {"pooled": pooled})
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-logits / 1.7)), atol=1e-6)
    graph = session(onnx_graph.answer_graph(head, 0.5, 1.7, "regression"))
    numbers, features = graph.run(["numbers", "features"], {"pooled": pooled})
    np.testing.assert_allclose(numbers, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features, raised(pooled, 0.5)[0], rtol=1e-5)
