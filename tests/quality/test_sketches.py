"""Near neighbours by sketches, beside exact search."""

from functools import cache

import numpy as np

from pipeline.quality import duplicates, sketches

EXAMPLES, FEATURES, LEAST = 3000, 1280, 0.5


@cache
def planted():
    """Directions, of which each query has one near-duplicate; the queries and the others."""
    cosine = 0.55
    random = np.random.default_rng(0)
    bank = random.standard_normal((EXAMPLES, FEATURES)).astype(np.float32)
    noise = random.standard_normal((EXAMPLES // 3, FEATURES)).astype(np.float32)
    copies = cosine * bank[: len(noise)] + np.sqrt(1 - cosine**2) * noise
    every = np.concatenate([bank, copies])
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    order = random.permutation(len(every))
    place = np.argsort(order)
    return every[order], place[EXAMPLES:], place[:EXAMPLES]


def found(features, queries, bank):
    mean = np.zeros(features.shape[1], np.float32)
    of = sketches.Sketches.of(features, mean, duplicates.NEAREST)
    pairs = of.candidates(queries, bank, LEAST)
    return {(query, row): cosine for query, row, cosine in pairs}


@cache
def found_of_planted():
    return found(*planted())


def test_nearly_all_pairs_above_the_threshold_are_found():
    features, queries, bank = planted()
    exact = duplicates.candidates(features[queries], features[bank], LEAST)
    wanted = {(queries[one], bank[other]): cosine for one, other, cosine in exact}
    pairs = found_of_planted()
    assert len(wanted) > 0.95 * len(queries)
    assert pairs.keys() <= wanted.keys()
    assert len(pairs) >= 0.99 * len(wanted)
    for pair, cosine in pairs.items():
        assert abs(cosine - wanted[pair]) < 1e-5


def test_the_order_of_arrival_changes_nothing():
    features, queries, bank = planted()
    order = np.random.default_rng(1).permutation(len(features))
    place = np.argsort(order)
    again = found(features[order], place[queries][::-1], np.sort(place[bank]))
    assert {(order[query], order[row]) for query, row in again} == set(found_of_planted())


def test_an_example_with_many_equals_keeps_the_nearest(monkeypatch):
    """All rows pass the threshold of the sketches, and few may be kept."""
    monkeypatch.setattr(sketches, "OF_BANK", 40)
    monkeypatch.setattr(sketches, "MOST", 50)
    random = np.random.default_rng(0)
    near = 1 + 0.1 * random.standard_normal((500, 64)).astype(np.float32)
    near[300] = near[0] * 2
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    pairs = found(near, np.array([0, 1]), np.arange(2, 500))
    assert [query for query, _ in pairs].count(0) == duplicates.NEAREST
    assert max(pairs, key=lambda pair: pairs[pair]) == (0, 300)


def test_products_are_exact_for_the_largest_sketches():
    signs = np.random.default_rng(0).choice([-1, 1], (3, sketches.WIDTH))
    every = sketches.LARGEST * np.concatenate([signs, -signs])
    bank = (every + sketches.LARGEST).astype(np.uint8)
    products = sketches.multiplier()(bank, every.T.astype(np.int8).copy())
    assert (products == every @ every.T).all()
    assert products.max() < sketches.BOUND
