"""Noise is as strong as it is said to be, and costs what it is said to cost."""

import math

import numpy as np
import pytest

from pipeline.federated import privacy, sums
from pipeline.federated.privacy import Noise

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((50, 12)).astype(np.float32) * 3
LABELS = np.arange(50) % 2


def noisy(noise, rows_of_one=2):
    exact = sums.of(privacy.clipped(FEATURES, noise.clip), LABELS, ["a", "b"])
    return exact, *privacy.noisy(exact, noise, rows_of_one)


def test_no_vector_is_longer_than_the_clip_and_short_ones_stay():
    shortened = privacy.clipped(FEATURES, 9.0)
    lengths = np.linalg.norm(shortened, axis=1)
    short = np.linalg.norm(FEATURES, axis=1) < 9
    assert lengths.max() <= 9
    assert short.any()
    assert not short.all()
    np.testing.assert_allclose(shortened[short], FEATURES[short], rtol=1e-11)


def test_one_example_changes_the_blocks_by_no_more_than_noise_is_made_for():
    clip, rows = 2.0, 2
    shortened = privacy.clipped(FEATURES, clip)
    one = sums.of(shortened, LABELS, ["a", "b"])
    other = sums.of(shortened[rows:], LABELS[rows:], ["a", "b"])
    changes = [
        sums.packed(one.gram - other.gram) / clip**2,
        (one.class_sums - other.class_sums).ravel() / clip,
        one.rows - other.rows,
    ]
    assert math.hypot(*map(np.linalg.norm, changes)) <= math.sqrt(privacy.BLOCKS) * rows


def test_the_noise_has_the_strength_that_is_told_and_is_drawn_anew():
    noise = Noise(1.0, 1e-5, 2.0)
    exact, one, rho = noisy(noise)
    _, other, _ = noisy(noise)
    assert not np.array_equal(one.gram, other.gram)
    units = (noise.clip**2, noise.clip, 1.0)
    drawn = np.concatenate([
        (sums.packed(one.gram) - sums.packed(exact.gram)) / units[0],
        (one.class_sums - exact.class_sums).ravel() / units[1],
        (one.rows - exact.rows) / units[2],
    ])  # fmt: skip
    assert one.noise == pytest.approx(privacy.scale_for(noise, 2 * math.sqrt(3)) * 4)
    assert np.std(drawn) == pytest.approx(one.noise / 4, rel=0.25)
    assert privacy.epsilon([rho], noise.delta) == pytest.approx(1.0, rel=1e-3)


def test_more_submissions_cost_more_and_less_than_their_sum():
    rho = noisy(Noise(1.0, 1e-5, 2.0))[2]
    four = privacy.epsilon([rho] * 4, 1e-5)
    assert 1.5 < four < 4


def test_a_stronger_promise_takes_more_noise():
    scales = [privacy.scale_for(Noise(epsilon, 1e-5, 1.0), 1.0) for epsilon in (0.5, 1, 8)]
    assert scales == sorted(scales, reverse=True)
    # The classic bound of the Gaussian mechanism (Dwork and Roth, theorem 3.22) needs more.
    assert scales[0] < math.sqrt(2 * math.log(1.25e5)) / 0.5
