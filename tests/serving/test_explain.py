"""Heat maps fall on the object, their weights are torch's gradients, neighbours are the nearest."""

import matplotlib
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from pipeline.backbones import lite
from pipeline.core.backbone import Backbone
from pipeline.heads.head import Head
from pipeline.kinds.image.heat import overlay
from pipeline.serving import explain
from pipeline.tables.power import raised

CATS, ESPRESSO = range(281, 286), 967  # of ImageNet's 1,000 classes
GENERATOR = np.random.default_rng(0)


def floats(*shape):
    return GENERATOR.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def imagenet():
    """EfficientNet-Lite0 with its own 1,000 classes: pictures [224, 224, 3] to maps, and a head."""
    named = Backbone.parse("efficientnet_lite0")
    network, preprocessing = lite.classifier(named), lite.PREPROCESSING[named.name]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in preprocessing[3:])

    def maps_of(picture):
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255
        with torch.inference_mode():
            return network.forward_features(((pixels - mean) / std)[None])[0].numpy()

    last = network.classifier
    return maps_of, Head(last.weight.detach().numpy(), last.bias.detach().numpy())


def square(picture, side):
    left = (picture.shape[1] - picture.shape[0]) // 2
    middle = picture[:, left : left + picture.shape[0]]
    return np.asarray(Image.fromarray(middle).resize((side, side)))


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_the_heat_is_on_the_cup(imagenet, power):
    maps_of, head = imagenet
    heat = explain.class_map([maps_of(square(skimage.data.coffee(), 224))], head, power, ESPRESSO)
    assert heat.shape == (7, 7)
    assert (heat.min(), heat.max()) >= (0, 1)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert row in (1, 2, 3)  # the coffee in the cup is a little above the middle
    assert column in (2, 3, 4)
    assert heat[5:].mean() < heat[1:4].mean() / 3  # the table is not what makes it a coffee


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_of_two_things_in_a_picture_each_class_sees_its_own(imagenet, power):
    maps_of, head = imagenet
    cat, cup = (square(p, 224)[:, 56:168] for p in (skimage.data.chelsea(), skimage.data.coffee()))
    maps = maps_of(np.concatenate([cat, cup], axis=1))
    for label, own, other in [(ESPRESSO, slice(4, 7), slice(0, 3))] + [
        (label, slice(0, 3), slice(4, 7)) for label in CATS
    ]:
        heat = explain.class_map([maps], head, power, label)
        assert heat[:, own].mean() > 1.2 * heat[:, other].mean(), label


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("width", [0, 6])
def test_the_weights_are_the_gradients_that_torch_finds(power, width):
    maps = floats(8, 3, 4) + np.resize([1.5, -1.5], (8, 1, 1)).astype(np.float32)  # no mean near 0
    hidden = (floats(width, 8), floats(width)) if width else ()
    head = Head(floats(5, width or 8), floats(5), *hidden)
    means = torch.from_numpy(maps.mean(axis=(1, 2))).requires_grad_()
    units = means.sign() * means.abs() ** power
    if width:
        units = (units @ torch.from_numpy(hidden[0]).T + torch.from_numpy(hidden[1])).relu()
    (units @ torch.from_numpy(head.weight[2])).backward()
    heat = np.maximum((means.grad.numpy()[:, None, None] * maps).sum(axis=0), 0)
    np.testing.assert_allclose(
        explain.class_map([maps], head, power, 2), heat / heat.max(), rtol=1e-4, atol=1e-6
    )


def test_maps_with_nothing_in_them_give_no_heat():
    head = Head(floats(3, 4), floats(3))
    for power in (1.0, 0.5):
        heat = explain.class_map([np.zeros((4, 7, 7), np.float32)], head, power, 0)
        np.testing.assert_array_equal(heat, 0)


def test_raising_keeps_the_sign_and_one_changes_nothing():
    features = floats(4, 5)
    assert raised(features, 1.0) is features
    np.testing.assert_allclose(raised(features, 0.5) ** 2 * np.sign(features), features, rtol=1e-5)
    assert raised(features, 0.5).dtype == np.float32


def test_an_overlay_is_the_grey_picture_and_cividis_half_and_half():
    picture = square(skimage.data.coffee(), 96)
    cividis = matplotlib.colormaps["cividis"]
    for level in (0.0, 0.3, 1.0):
        seen = overlay(picture, np.full((7, 7), level, np.float32))
        assert seen.shape == picture.shape
        assert seen.dtype == np.uint8
        grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
        colour = np.array(cividis(level)[:3]) * 255
        assert np.abs(seen - (grey + colour) / 2).max() < 6


def test_an_overlay_is_lighter_where_there_is_more_heat():
    heat = np.zeros((5, 5), np.float32)
    heat[1, 3] = 1
    seen = overlay(np.full((50, 100, 3), 128, np.uint8), heat).mean(axis=2)
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    assert (row // 10, column // 20) == (1, 3)
    steps = np.abs(np.diff(seen, axis=1)).max()
    assert steps < 12  # no edge of a cell is seen


def test_neighbours_are_the_nearest_and_come_in_order():
    bank, features = explain.directions(floats(700, 16)), explain.directions(floats(300, 16))
    positions, cosines = explain.neighbours(features, bank, 5)
    everything = features @ bank.T
    np.testing.assert_array_equal(positions, np.argsort(-everything, axis=1)[:, :5])
    np.testing.assert_allclose(cosines, -np.sort(-everything, axis=1)[:, :5], rtol=1e-6)
    itself, one = explain.neighbours(bank, bank, 1)
    np.testing.assert_array_equal(itself[:, 0], np.arange(700))
    np.testing.assert_allclose(one, 1, rtol=1e-5)


def test_of_a_small_bank_all_are_neighbours_and_equals_come_as_they_stand():
    bank = explain.directions(np.array([[1, 1], [0, 0], [2, 2], [1, 0]], np.float32))
    positions, cosines = explain.neighbours(bank[:1], bank, 9)
    assert positions.tolist() == [[0, 2, 3, 1]]
    assert cosines[0, 3] == 0


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_directions_do_not_depend_on_how_large_features_are(factor: float) -> None:
    given = floats(20, 16)
    found = explain.directions((given * factor).astype(np.float32))
    np.testing.assert_allclose(found, explain.directions(given), rtol=1e-4, atol=1e-6)
    assert explain.directions(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]
