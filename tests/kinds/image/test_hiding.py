"""Backbones without maps: heat maps by hiding half of a picture's cells at a time."""

import importlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from pipeline import kinds
from pipeline.core.paths import MANIFEST
from pipeline.kinds import Preprocessing
from pipeline.kinds.image import hiding
from pipeline.kinds.image.heat import overlay
from pipeline.kinds.image.preprocess import base, crop
from pipeline.serving import predict
from pipeline.serving.classifier import Classifier
from pipeline.serving.explain import effects, odds
from pipeline.serving.hidden import hidden_features
from pipeline.tables.manifest import read_manifest
from tests.conftest import enter_copy, project_in

IMAGE = kinds.named("image")
NAME = "python:redness.network"
TOLD = "(72, 64, 'bicubic', (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))"
# How much of the picture is red and how much is blue, wherever it is: there are no maps.
PLUGIN = f'''
import onnx

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
redness (uint8[n, 64, 64, 3] pictures) => (float[n, 2] features)
<float[1, 1, 3, 2] differ = {{1.0, -1.0, 0.0, 0.0, -1.0, 1.0}}, float most = {{25.0}},
 int64[2] inside = {{1, 2}}>
{{
    numbers = Cast <to = 1> (pictures)
    colours = MatMul (numbers, differ)
    only = Relu (colours)
    sums = ReduceMean <keepdims = 0> (only, inside)
    features = Div (sums, most)
}}
"""

def network():
    return onnx.parser.parse_model(GRAPH), {TOLD}
'''


def drawn(seed, colour, place):
    """Grey noise of 90 x 72 pixels, with a disc of a colour at (x, y)."""
    noise = np.random.default_rng(seed).integers(90, 130, (72, 90, 1)).astype(np.uint8)
    pixels = np.repeat(noise, 3, axis=2)
    rows, columns = np.mgrid[:72, :90]
    pixels[(columns - place[0]) ** 2 + (rows - place[1]) ** 2 < 64] = colour
    return Image.fromarray(pixels)


def as_bytes(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def run(*stages):
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory, exported):
    folder = tmp_path_factory.mktemp("trained")
    with project_in(folder, exported) as project:
        train_on_discs(project)
    return folder


@pytest.fixture
def trained(trained_once, tmp_path, monkeypatch):
    """A bundle that distinguishes red discs from blue ones, by a graph without maps."""
    enter_copy(trained_once, tmp_path / "project", monkeypatch)
    return Path("bundle")


def train_on_discs(project):
    Path("plugins").mkdir()
    Path("plugins/redness.py").write_text(PLUGIN)
    places = np.random.default_rng(0).integers((20, 12), (70, 60), (40, 2)).tolist()
    for i, (x, y) in enumerate(places):
        label, colour = (("red", (220, 60, 60)), ("blue", (60, 60, 220)))[i % 2]
        file = Path("data/raw/discs") / label / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn(i, colour, (x, y)).save(file)
    project.set(
        **{"ingest.source": "folder", "ingest.path": "data/raw/discs", "augment.views": 0},
        **{"extract.backbone": NAME, "evaluate.bootstrap": 10},
    )
    run("ingest", "augment", "extract", "train", "evaluate", "bundle")


def heat_of(shown, picture):
    """How much lighter than without heat each pixel is: [64, 64], of the colours' red part."""
    seen = crop(base(as_bytes(picture), Preprocessing(72, 64, "bicubic", (0,) * 3, (1,) * 3)), 64)
    cold = overlay(seen, np.zeros((7, 7), np.float32)).astype(int)
    return (np.asarray(Image.open(io.BytesIO(shown))).astype(int) - cold)[..., 0]


@pytest.mark.parametrize("place", [(24, 18), (64, 20), (45, 36), (26, 56), (62, 52)])
def test_the_marked_cells_lie_on_the_object_that_decides(trained, place):
    picture = drawn(99, (220, 60, 60), place)
    classifier = Classifier(trained, explains=True)
    assert not classifier.has_maps
    answer = classifier.answer(as_bytes(picture), heat=True)
    assert classifier.classes[answer.best] == "red"
    assert answer.heat is not None
    heat = heat_of(answer.heat.data, picture)
    # The backbone sees the middle 64 x 64 pixels of 90 x 72.
    x, y = place[0] - 13, place[1] - 4
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert np.hypot(row - y, column - x) < 10
    rows, columns = np.mgrid[:64, :64]
    far = (columns - x) ** 2 + (rows - y) ** 2 > 24**2
    assert heat[far].mean() < heat.max() / 10


def test_every_door_shows_the_same_map_each_time(trained, tmp_path):
    file = tmp_path / "one.png"
    drawn(7, (60, 60, 220), (40, 30)).save(file)
    model = headstart.load(trained)
    shown = model.explain(file)
    assert model.explain(file.read_bytes()) == shown
    predict.run(trained, [str(file)], csv=tmp_path / "a.csv", heat_maps=tmp_path / "maps")
    (written,) = (tmp_path / "maps").iterdir()
    assert written.read_bytes() == shown
    small = Classifier(trained, explains=True).answer(file.read_bytes(), heat=True, side=32)
    assert small.heat is not None
    assert Image.open(io.BytesIO(small.heat.data)).size == (32, 32)


def test_another_head_draws_its_map_from_kept_features_of_hidden_parts(
    trained_once, tmp_path, monkeypatch, capsys
):
    project = enter_copy(trained_once, tmp_path / "project", monkeypatch)
    computed = []
    hidden = Classifier.hidden
    monkeypatch.setattr(Classifier, "hidden", lambda *a: computed.append(1) or hidden(*a))
    manifest = read_manifest(MANIFEST)
    paths = manifest["path"].tolist()[:2]
    examples = [(path, digest, "") for path, digest in zip(paths, manifest["digest"], strict=False)]

    def maps():
        classifier = Classifier(Path("bundle"), explains=True)
        parts = hidden_features(classifier, examples, lambda path: Path(path).read_bytes())
        answers = [
            classifier.answer(Path(path).read_bytes(), heat=True, seen=parts[path])
            for path in paths
        ]
        return [answer.heat.data for answer in answers if answer.heat]

    first = maps()
    assert (len(first), len(computed)) == (2, 2)
    assert maps() == first
    project.set(**{"train.weight_decay": 0.3})
    run("train", "evaluate", "bundle")
    maps()
    assert len(computed) == 2
    with monkeypatch.context() as patch:
        patch.setenv("HEADSTART_STORE", "/dev/null/none")
        maps()
    assert len(computed) == 4
    assert "the next run computes them again" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet+timm:test_vit"])
def test_transformers_and_networks_joined_with_one_have_maps_and_are_told_to_be_untrained(
    project, draw_picture, name
):
    for i in range(40):
        path = Path("data/raw/shapes") / ("disc", "square")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, 80 + 7 * i, 60 + 5 * i, square=bool(i % 2)).save(path)
    project.set(
        **{"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 0},
        **{"extract.backbone": name, "extract.weights": "random", "evaluate.bootstrap": 10},
    )
    run("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle")
    classifier = Classifier(Path("bundle"), explains=True)
    assert not classifier.has_maps
    data = path.read_bytes()
    first, second = (classifier.answer(data, heat=True).heat for _ in range(2))
    assert first is not None
    assert first == second

    file = Path("reports/predictions.csv")
    lines = file.read_text().splitlines()
    columns = lines[0].split(",")
    cells = lines[1].split(",")
    cells[columns.index("correct")] = "False"
    file.write_text("\n".join([lines[0], ",".join(cells), *lines[2:], ""]))
    run("report")
    page = Path("reports/report.html").read_text()
    assert "The backbone's weights are random: it was trained on nothing" in page
    assert "<figcaption>evidence for" in page


def test_any_two_cells_are_hidden_together_in_a_quarter_of_the_pictures():
    hides = hiding.together().astype(int)
    both = hides.T @ hides
    np.testing.assert_array_equal(np.diag(both), len(hides) // 2)
    np.testing.assert_array_equal(both[~np.eye(len(both), dtype=bool)], len(hides) // 4)
    assert len(np.unique(hides, axis=0)) == len(hides)


def test_effects_are_those_of_each_part_by_itself():
    hides = hiding.together()
    generator = np.random.default_rng(0)
    of_parts = generator.normal(0, 0.3, hides.shape[1])
    without = 3 - hides @ of_parts
    wanted = np.maximum(of_parts, 0) / of_parts.max()
    np.testing.assert_allclose(effects(without, hides), wanted, atol=1e-6)
    # An answer that nothing changes has no reason.
    np.testing.assert_array_equal(effects(np.full(len(hides), 0.3), hides), 0)


def test_the_odds_of_a_certain_answer_are_told_from_the_others():
    for least in (1e-3, 1e-9, 1e-20):
        shares = np.array([least, 1 - 3 * least, 2 * least], np.float32)
        assert odds(shares, 1) == pytest.approx(-np.log(3 * least), rel=1e-3)
    for certain in ([1, 0], [0, 1]):
        assert np.isfinite(odds(np.array(certain, np.float32), 0))


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (64, 64), (2000, 90), (71, 73)])
@pytest.mark.parametrize(("resize", "side"), [(72, 64), (73, 64), (64, 64), (64, 80)])
def test_what_is_left_of_the_picture_stays_where_it_was(size, resize, side, draw_picture):
    wanted = Preprocessing(resize, side, "bicubic", (0.5,) * 3, (0.5,) * 3)
    data = as_bytes(draw_picture(3, *size))
    seen = crop(IMAGE.read(data, wanted), side)
    some, hides = IMAGE.hidden(data, wanted), hiding.together()
    nothing = some[int(np.flatnonzero(~hides.any(axis=1))[0])]
    np.testing.assert_array_equal(crop(nothing, side), seen)
    assert {one.shape for one in some} == {nothing.shape}
    assert min(nothing.shape[:2]) == max(resize, side)
    for one, corner in zip(some, hides[:, 0], strict=True):
        changed = crop(one, side)[:3, :3].astype(int) - seen[:3, :3]
        assert corner or not changed.any()
