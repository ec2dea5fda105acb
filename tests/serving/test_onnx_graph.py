"""The graph behind the backbone does what the head does."""

import numpy as np
import onnxruntime
import pytest

from pipeline.heads.head import Head, probabilities
from pipeline.serving import onnx_graph
from pipeline.tables.power import raised

GENERATOR = np.random.default_rng(0)


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString())


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
