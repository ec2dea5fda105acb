"""`headstart.Embedder`: a transformer of scikit-learn's, on the feature store of `extract`."""

import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import headstart
from pipeline import augment, extract
from pipeline.backbones import exports
from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.examples import files
from pipeline.serving import embedding
from pipeline.tables import features
from tests.conftest import SMALL

BACKBONE, WEIGHTS = SMALL["extract.backbone"], SMALL["extract.weights"]


def small():
    return headstart.Embedder(BACKBONE, weights=WEIGHTS)  # type: ignore[arg-type]


@pytest.fixture
def paths(project, small_backbone, draw_picture):
    """Twelve pictures and a manifest of them, in a project with a store of its own."""
    project.set(**SMALL, **{"augment.views": 1})
    found = [f"data/raw/{number}.png" for number in range(12)]
    rows = []
    for number, path in enumerate(found):
        draw_picture(number, square=bool(number % 2)).save(path)
        label = ("disc", "square")[number % 2]
        rows.append((files.digest(Path(path).read_bytes()), path, label, "train"))
    table = pd.DataFrame(rows, columns=["digest", "path", "label", "split"])
    table.to_parquet(MANIFEST)
    augment.augment()
    return found


@pytest.fixture
def computed(monkeypatch):
    """How many examples each call of the embedder computed."""
    counts: list[int] = []
    embed = embedding.embed

    def counted(*arguments):
        done = embed(*arguments)  # type: ignore[arg-type]
        counts.append(done.computed)
        return done

    monkeypatch.setattr(embedding, "embed", counted)
    return counts


def extracted(paths):
    """View 0 of each path, as `extract` wrote it."""
    manifest = pd.read_parquet(MANIFEST)
    split = features.read_splits(FEATURES, manifest, ["disc", "square"], ["train"])["train"]
    originals = split.views == 0
    known = dict(zip(split.paths[originals], split.features[originals], strict=True))
    return np.stack([known[path] for path in paths])


def test_what_extract_computed_is_not_computed_again(paths, computed):
    extract.extract()
    np.testing.assert_array_equal(small().transform(paths), extracted(paths))
    assert computed == [0]


def test_what_the_embedder_computed_extract_finds(paths, computed, capsys):
    got = small().transform([Path(path).read_bytes() for path in paths])
    assert computed == [12]
    extract.extract()
    assert "24 views: 12 reused, 12 computed" in capsys.readouterr().out
    np.testing.assert_array_equal(got, extracted(paths))


def test_it_is_a_step_of_a_pipeline(paths, computed):
    labels = ["disc", "square"] * 6
    learner = make_pipeline(small(), LogisticRegression())
    assert cross_val_score(learner, paths, labels, cv=3).shape == (3,)
    said = learner.fit(paths, labels).predict(paths).tolist()
    assert set(said) == {"disc", "square"}
    again = clone(learner)
    assert again[0].get_params() == small().get_params()
    assert again[0].set_params(batch_size=5).fit_transform(paths).shape == (12, 96)
    saved = pickle.loads(pickle.dumps(learner))  # noqa: S301 (our own)
    assert saved.predict(paths).tolist() == said
    assert sum(computed) == 12


def test_arrays_have_a_feature_of_their_own_that_is_kept(paths, computed):
    pixels = [np.asarray(Image.open(path)) for path in paths[:3]]
    first = small().transform(pixels)
    np.testing.assert_array_equal(first, small().transform(paths[:3]))  # a PNG loses nothing
    np.testing.assert_array_equal(first, small().transform(np.stack(pixels)))
    assert computed == [3, 3, 0]
    for many in (np.array(paths), pd.Series(paths), (Path(path) for path in paths)):
        assert small().transform(many).shape == (12, 96)
    assert small().transform([]).shape == (0, 96)


def test_a_bad_picture_among_good_ones_is_named(paths):
    Path("bad.png").write_bytes(Path(paths[0]).read_bytes()[:-40])
    with pytest.raises(headstart.RefusedError, match=r"^bad\.png: damaged or cut short"):
        small().transform([*paths, "bad.png"])
    with pytest.raises(headstart.RefusedError, match=r"^nothing\.png: cannot be read"):
        small().transform([*paths, "nothing.png"])


def test_an_impossible_parameter_is_one_line(paths):
    with pytest.raises(headstart.ParamsError, match=r"^Embedder: backbone is 'resnet'; should be"):
        headstart.Embedder("resnet").fit(paths)
    kind = 'Embedder: backbone mfcc takes spectrum, .*; use another backbone, or kind="audio"$'
    with pytest.raises(headstart.ParamsError, match=kind):
        headstart.Embedder("mfcc").fit([])
    with pytest.raises(headstart.ParamsError, match=r"^Embedder: batch_size is 0; "):
        headstart.Embedder(batch_size=0).fit(paths)


def test_without_the_packages_for_sounds_it_says_what_to_install(project, monkeypatch):
    for module in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    wanted = r"^a backbone that takes sounds needs the packages for sounds, .*install audio"
    with pytest.raises(headstart.MissingSetError, match=wanted):
        headstart.Embedder("mfcc", kind="audio").fit([])


def test_threads_that_begin_on_an_empty_store_share_one_export(tmp_path, monkeypatch, draw_picture):
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    made = []
    save = exports._save
    monkeypatch.setattr(exports, "_save", lambda *told: (made.append(told[-1]), save(*told)))
    pictures = [np.asarray(draw_picture(number)) for number in range(4)]
    began = threading.Barrier(4)

    def transform(number):
        began.wait()
        return headstart.Embedder("efficientnet_lite0").transform([pictures[number]])

    with ThreadPoolExecutor(4) as pool:
        found = np.concatenate(list(pool.map(transform, range(4))))
    np.testing.assert_array_equal(found, headstart.Embedder().transform(pictures))
    assert len(made) == 1
    files_there = sorted(file.suffix for file in (tmp_path / "store" / "backbones").iterdir())
    assert files_there == [".onnx", ".safetensors"]
