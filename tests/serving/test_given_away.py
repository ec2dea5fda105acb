"""What a bundle and a report give away of training examples, as files and through a server."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file
from starlette.testclient import TestClient

from headstart import Model
from pipeline.bundle import bundle as bundle_stage
from pipeline.core.errors import RefusedError
from pipeline.core.paths import BUNDLE, MANIFEST, REPORT, SHEETS
from pipeline.kinds.vector.parse import npy
from pipeline.pages import points
from pipeline.pages.mistakes import NEAR
from pipeline.report import report
from pipeline.serving import novelty, predict, server, writing
from pipeline.serving.classifier import Classifier
from tests.helpers.bundles import VECTORS, write_by_hand
from tests.serving.test_serve import serving

SECRETS = {".env": "AWS_SECRET_ACCESS_KEY=verysecret", ".aws/credentials": "[default] key=secret"}


@pytest.fixture
def hostile(
    by_hand: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., TestClient]]:
    """A stranger's bundle of texts in a folder with secrets: what its server answers."""
    monkeypatch.chdir(tmp_path)
    for name, content in SECRETS.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    shutil.copytree(by_hand("classification"), "stranger")
    opened = []

    def serve(paths: list[str], kind: str = "text", digests: list[str] | None = None) -> TestClient:
        about = json.loads(Path("stranger/bundle.json").read_text())
        Path("stranger/bundle.json").write_text(json.dumps(about | {"kind": kind}))
        known = json.loads(Path("stranger/neighbours.json").read_text())
        known["paths"][: len(paths)] = paths
        known.pop("digests", None)
        if digests is not None:
            known["digests"] = digests + ["0" * 64] * (len(known["paths"]) - len(digests))
        Path("stranger/neighbours.json").write_text(json.dumps(known))
        classifier = Classifier(Path("stranger"), explains=True)
        client = TestClient(
            server.application(classifier, server.Limits()), base_url="http://127.0.0.1"
        )
        opened.append(client.__enter__())
        return opened[-1]

    yield serve
    for client in opened:
        client.__exit__(None, None, None)


@pytest.mark.parametrize("digests", [None, ["f" * 64] * 4])
def test_a_strangers_bundle_gets_no_file_of_the_folder(
    hostile: Callable[..., TestClient], digests: list[str] | None
) -> None:
    Path("notes.txt").write_text("private notes")
    client = hostile([*SECRETS, "notes.txt", "nothing.txt"], digests=digests)
    replies = [client.get(f"/training/{number}") for number in range(4)]
    assert [reply.status_code for reply in replies] == [404] * 4
    assert len({reply.text for reply in replies}) == 1  # nor whether there is one
    assert "secret" not in replies[0].text


@pytest.mark.slow
def test_nor_by_a_real_server(hostile: Callable[..., TestClient]) -> None:
    hostile([*SECRETS])
    shutil.copytree("stranger", "bundle")
    with serving(Path.cwd()) as address:
        replies = [httpx.get(f"{address}/training/{number}") for number in range(2)]
    assert [reply.status_code for reply in replies] == [404, 404]


def test_only_the_file_that_the_bundle_was_made_with_is_given(
    hostile: Callable[..., TestClient],
) -> None:
    Path("brick.txt").write_text("a brick wall")
    right = hashlib.sha256(b"a brick wall").hexdigest()
    client = hostile(["brick.txt"] * 3, digests=[right, "é" * 64, right])
    assert client.get("/training/0").text == "a brick wall"
    assert client.get("/training/1").status_code == 404
    assert (
        client.get("/training/6").json()["detail"]
        == "there is no training example 6; the bundle has 6, numbered from 0"
    )
    assert client.get("/training/-1").status_code == 404
    Path("brick.txt").write_text("another wall")
    assert "not the one that the bundle was made with" in client.get("/training/2").text
    assert client.get("/training/0").text == "a brick wall"  # what was shown is kept for a while


def test_an_older_bundle_of_pictures_shows_them_and_nothing_hidden_or_outside(
    hostile: Callable[..., TestClient], picture: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "a.png"
    for file in (Path("a.png"), Path(".hidden/a.png"), outside):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture)
    Path("link.png").symlink_to(outside)
    paths = ["a.png", ".hidden/a.png", "link.png", "data/../.hidden/a.png", str(outside)]
    client = hostile(paths, kind="image")
    replies = [client.get(f"/training/{number}") for number in range(5)]
    assert [reply.status_code for reply in replies] == [200, 404, 404, 404, 404]
    assert replies[0].headers["content-type"] == "image/jpeg"
    for number in (1, 2):
        assert "older version" in replies[number].json()["detail"]
        assert "run the stage bundle again" in replies[number].json()["detail"]


@pytest.fixture
def picture(bundled: Path) -> bytes:
    return (bundled / "data/raw/shapes/disc/0.png").read_bytes()


# What leaves with a bundle


@pytest.fixture
def project(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(bundled, folder, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(bundled / "cache" / "features"))
    return folder


def give_away(**sections: dict[str, str]) -> None:
    """Set sections of `params.yaml` and run the stage; without any, as of an older file."""
    document = yaml.safe_load(Path("params.yaml").read_text())
    for name in ("bundle", "report"):
        document.pop(name, None)
    Path("params.yaml").write_text(yaml.safe_dump(document | sections))
    bundle_stage()


def held() -> tuple[np.ndarray, dict[str, Any], str]:
    """Features and texts of a bundle, and all that is not a number in it."""
    features = load_file(BUNDLE / "neighbours.safetensors")["features"]
    known = json.loads((BUNDLE / "neighbours.json").read_text())
    texts = "".join(file.read_text() for file in BUNDLE.glob("*.json"))
    return features, known, texts


def test_an_older_params_yaml_means_features_and_paths_with_digests(project: Path) -> None:
    give_away()
    features, known, _ = held()
    manifest = pd.read_parquet(MANIFEST)
    train = manifest[manifest["split"] == "train"].set_index("digest")
    assert len(features) == len(known["labels"]) == len(train)
    assert train.loc[known["digests"], "path"].tolist() == known["paths"]
    classifier = Classifier(BUNDLE, explains=True)
    given = classifier.training_example(5)
    assert given == Path(known["paths"][5]).read_bytes()
    with pytest.raises(RefusedError, match="the bundle has"):
        classifier.training_example(-1)


def test_features_alone_name_no_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    give_away(bundle={"training_examples": "features"})
    features, known, texts = held()
    assert len(features) == len(known["labels"]) > 20
    assert set(known["paths"]) == {""}
    assert "digests" not in known
    assert "data/raw/shapes" not in texts
    classifier = Classifier(BUNDLE, explains=True)
    with pytest.raises(RefusedError, match="does not name the files"):
        classifier.training_example(0)
    predict.run(BUNDLE, ["data/raw/shapes/disc/0.png"], neighbours=2)
    assert capsys.readouterr().out.count("like disc") == 2


def test_a_bundle_may_hold_no_training_example(project: Path) -> None:
    give_away()
    usual_of_all = Classifier(BUNDLE)
    give_away(bundle={"training_examples": "none"})
    features, known, texts = held()
    assert len(features) == len(known["labels"]) == len(known["paths"]) == 0
    assert "data/raw/shapes" not in texts
    manifest = pd.read_parquet(MANIFEST)
    assert not [digest for digest in manifest["digest"] if digest in texts]
    classifier = Classifier(BUNDLE, explains=True)
    data = Path("data/raw/shapes/disc/0.png").read_bytes()
    answer = classifier.answer(data, heat=True, neighbours=3)
    assert answer.neighbours == ()
    assert answer.heat is not None
    assert answer.distance is not None
    assert answer.distance != pytest.approx(usual_of_all.answer(data).distance, abs=1e-3)
    with pytest.raises(RefusedError, match="the bundle has 0"):
        classifier.training_example(0)
    assert Model(BUNDLE).neighbours(data) == []
    client = TestClient(
        server.application(classifier, server.Limits()), base_url="http://127.0.0.1"
    )
    with client:
        headers = {"Content-Type": "image/png"}
        reply = client.post("/predict?neighbours=6", content=data, headers=headers).json()
        assert reply["neighbours"] == []
        assert reply["distance"] == answer.distance
        assert client.get("/training/0").status_code == 404
    give_away()
    assert not (BUNDLE / novelty.MEANS_FILE).exists()


def test_a_bundle_holds_the_same_number_of_each_class(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_away()
    features, known, _ = held()
    assert "neighbours" not in json.loads((BUNDLE / "bundle.json").read_text())
    bank = dict(zip(known["digests"], features, strict=True))
    of_train = pd.read_parquet(MANIFEST).query("split == 'train'").sort_values("digest")
    first = of_train.groupby("label").head(2)
    assert len(first) == 4 < len(of_train)
    monkeypatch.setattr(writing, "NEIGHBOURS", 4)
    monkeypatch.setattr(novelty, "MOST", 2)
    give_away()
    features, known, _ = held()
    assert sorted(known["digests"]) == sorted(first["digest"])
    np.testing.assert_array_equal(features, [bank[digest] for digest in known["digests"]])
    assert Classifier(BUNDLE, explains=True).bundle.neighbours == 4
    assert "features, labels and paths of 4 training pictures" in (BUNDLE / "README.md").read_text()


def test_means_of_classes_tell_what_is_far_from_all(project: Path) -> None:
    random = np.random.default_rng(0)
    near = np.repeat(np.eye(4, dtype=np.float32), 30, axis=0)[:60]
    near = near + random.normal(0, 0.1, near.shape).astype(np.float32)
    means = novelty.class_means(near, np.arange(60), np.repeat([0, 1], 30), 2)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(means, np.eye(4)[:2], atol=0.1)
    found = novelty.of_means(means, near[::2])
    one = novelty.Detector(means, found.k, found.threshold)
    assert np.mean([one.unusual(one.distance(row)) for row in near]) < 0.2
    assert one.unusual(one.distance(np.eye(4, dtype=np.float32)[3]))
    assert novelty.of_means(means, near[:18]).threshold is None


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_without_means_of_classes_nothing_is_unusual(
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
) -> None:
    """A class has two training examples here, whose mean would give them away."""
    monkeypatch.setenv("HEADSTART_STORE", str(exported.parent))
    made = write_by_hand(tmp_path, task, given_away="none")
    assert "so there is no novelty detection" in capsys.readouterr().out
    classifier = Classifier(made, explains=True)
    answer = classifier.answer(npy(VECTORS[0]), neighbours=2)
    assert (answer.distance, answer.unusual, answer.neighbours) == (None, None, ())
    assert classifier.bundle.schema == (1 if task == "classification" else 3)


# What leaves with the report


def test_a_report_without_examples_has_all_figures(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = pd.read_csv("reports/predictions.csv")
    first, second = predictions["path"][:2]
    truth = {"disc": "square", "square": "disc"}[predictions.loc[0, "predicted"]]
    predictions.loc[0, ["correct", "label"]] = [False, truth]
    predictions.to_csv("reports/predictions.csv", index=False)
    pair = {"path": first, "split": "test", "label": "disc", "other_path": second}
    pair |= {"other_split": "train", "other_label": "square", "cosine": 0.98765}
    pd.DataFrame([pair]).to_csv("reports/checks/near_duplicates.csv", index=False)
    issue = {"path": second, "split": "val", "label": "disc", "suggested": "square"}
    issue |= {"probability": 0.91, "given_probability": 0.02, "wrong": 0.97}
    pd.DataFrame([issue]).to_csv("reports/checks/label_issues.csv", index=False)
    flawed = {"path": second, "split": "val", "label": "disc", "problem": "blurred", "beyond": 1}
    pd.DataFrame([flawed]).to_csv("reports/checks/flawed.csv", index=False)

    def made(**sections: dict[str, str]) -> str:
        give_away(**sections)
        report()
        return REPORT.read_text()

    monkeypatch.setattr(points, "INLINE", 10)
    shown = made()
    assert list(SHEETS.glob("*.svg"))
    hidden = made(report={"examples": "hidden"})
    assert not list(SHEETS.glob("*.svg"))
    manifest = pd.read_parquet(MANIFEST)
    assert any(path in shown for path in manifest["path"])
    assert not any(path in hidden or Path(path).name in hidden for path in manifest["path"])
    assert "<img" not in hidden
    assert "data:image" not in hidden
    digest = manifest.set_index("path").loc[[first, second], "digest"].str[:12]
    for part in (
        *digest,
        "cosine 0.9877",
        "rather <b>square</b>",
        "<b>blurred</b>",
        'id="confusion"',
    ):
        assert part in hidden
    figures = re.compile(r"<b>[\d.]+ ?%?</b>|<td[^>]*>[^<]*|<text[^>]*>[^<]*")
    assert figures.findall(hidden) == figures.findall(shown)
    # A bundle without neighbours leaves the picture and its heat map.
    page = made(bundle={"training_examples": "none"})
    card = page.split('id="mistakes"')[1].split('id="confusion"')[0]
    assert card.count("<img") == 2
    assert "the most similar training" not in page
    assert "the most similar training" in shown
    page = made(bundle={"training_examples": "features"}, report={"examples": "hidden"})
    nearest = re.findall(r'<figure title=""><figcaption>(\w+), \d\.\d\d<', page)
    assert len(nearest) == NEAR
