"""What leaves a site, what can be read out of it, and what is refused."""

import csv
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import MANIFEST
from pipeline.federated import site, submission
from pipeline.federated.ledger import Ledger
from pipeline.tables.manifest import write_manifest
from tests.federated.sites import DIMENSION, Site

FOLDER = Path("site/oslo")
COUNTS = {"ants": 20, "bees": 30}


@pytest.fixture
def oslo(tmp_path, exported, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORE", str(exported.parent))
    made = Site(tmp_path / "oslo", 0, COUNTS)
    monkeypatch.chdir(made.folder)
    return made


def sums_of(folder=FOLDER):
    return submission.read(folder).sums


def used(project):
    return project.examples[project.examples["split"] != "test"]


def test_a_submission_holds_the_sums_of_what_train_trains_on(oslo, capsys):
    site.run("oslo")
    splits = oslo.splits(["ants", "bees"])
    features = np.concatenate([splits[n].features for n in ("train", "val")]).astype(float)
    labels = np.concatenate([splits[n].labels for n in ("train", "val")])
    found = submission.read(FOLDER)
    np.testing.assert_allclose(found.sums.gram, features.T @ features)
    np.testing.assert_allclose(found.sums.class_sums[1], features[labels == 1].sum(axis=0))
    assert found.sums.rows.tolist() == np.bincount(labels).tolist()
    counts = used(oslo)["label"].value_counts()
    assert found.examples.tolist() == [counts["ants"], counts["bees"]]
    assert found.about["power"] == 1.0
    assert "submission 1 of oslo, 40 examples of 2 classes" in capsys.readouterr().out


def test_without_refit_validation_examples_stay_out(oslo):
    oslo.set(train={"refit": False})
    site.run("oslo")
    examples = submission.read(FOLDER).examples
    assert examples.sum() == (oslo.examples["split"] == "train").sum()


def test_the_page_tells_files_shapes_counts_and_the_fewest_examples(oslo):
    site.run("oslo")
    text = site.PAGE.read_text()
    for file in FOLDER.iterdir():
        assert f"| `{file.name}` | {file.stat().st_size:,} |" in text
    assert {file.name for file in FOLDER.iterdir()} == {"submission.json", "sums.safetensors"}
    triangle = DIMENSION * (DIMENSION + 1) // 2
    assert f"| `gram` | [{triangle}] | {triangle} |" in text
    assert f"| `class_sums` | [2, {DIMENSION}] |" in text
    assert "The smallest class is ants, with 16 examples." in text
    assert "can compare it with the mean" in text


def test_the_same_examples_are_the_same_submission(oslo, capsys):
    site.run("oslo")
    before = {file: file.read_bytes() for file in FOLDER.iterdir()}
    capsys.readouterr()
    site.run("oslo")
    assert "nothing changed since submission 1" in capsys.readouterr().out
    shutil.rmtree(FOLDER)
    site.run("oslo")
    assert {file: file.read_bytes() for file in FOLDER.iterdir()} == before
    assert len(Ledger(site.LEDGER).entries) == 1


def test_two_submissions_give_away_the_one_example_by_which_they_differ(oslo, capsys):
    site.run("oslo")
    before = sums_of()
    gone = oslo.examples.index[oslo.examples["split"] == "val"][0]
    digest = oslo.examples["digest"][gone]
    oslo.examples = oslo.examples.drop(index=gone).reset_index(drop=True)
    oslo.write()
    capsys.readouterr()
    site.run("oslo")
    said = capsys.readouterr().out
    assert "1 example of class ants differs from submission 1: anyone who has both can" in said
    assert "**1 example of class ants differs from submission 1" in site.PAGE.read_text()
    (vector,) = [row[2] for row in oslo.rows if row[0] == digest]
    told = (before.class_sums - sums_of().class_sums)[0]
    np.testing.assert_allclose(told, vector.astype(np.float32), atol=1e-9)


def test_many_changed_examples_are_no_warning_and_a_way_back_is_one_more_submission(oslo, capsys):
    site.run("oslo")
    before = sums_of()
    for number in used(oslo).index[:6]:
        oslo.relabel(number, "bees")
    site.run("oslo")
    assert "warning" not in capsys.readouterr().out
    for number in used(oslo).index[:6]:
        oslo.relabel(number, "ants")
    site.run("oslo")
    assert submission.read(FOLDER).number == 3
    np.testing.assert_array_equal(sums_of().gram, before.gram)
    counts = [len(held) for held in Ledger(site.LEDGER).held]
    assert counts == [40, 40, 40]


def test_many_examples_of_which_one_is_of_another_class_give_that_one_away(oslo, capsys):
    site.run("oslo")
    before = sums_of()
    kept = used(oslo)
    bees = kept.index[kept["label"] == "bees"][:6]
    lonely = kept.index[(kept["label"] == "ants") & (kept["split"] == "val")][0]
    digest = oslo.examples["digest"][lonely]
    oslo.examples = oslo.examples.drop(index=[*bees, lonely]).reset_index(drop=True)
    oslo.write()
    site.run("oslo")
    assert "1 example of class ants differs from submission 1" in capsys.readouterr().out
    (vector,) = [row[2] for row in oslo.rows if row[0] == digest]
    told = (before.class_sums - sums_of().class_sums)[0]
    np.testing.assert_allclose(told, vector.astype(np.float32), atol=1e-9)


def test_one_example_that_moves_to_the_training_split_is_told(oslo, capsys):
    """The sums then have its augmented view, and nothing else is new in them."""
    site.run("oslo")
    before, view = sums_of(), into_training(oslo)
    capsys.readouterr()
    site.run("oslo")
    assert "1 example of class ants differs from submission 1" in capsys.readouterr().out
    assert site.PAGE.read_text().count("| 40 | 1 | none |") == 1
    difference = (sums_of().class_sums - before.class_sums)[0]
    np.testing.assert_allclose(difference, view.astype(np.float32), atol=1e-9)


def into_training(project):
    """Move a validation example into the training split; return its new view."""
    moved = project.examples.index[project.examples["split"] == "val"][0]
    digest, view = project.examples["digest"][moved], np.arange(DIMENSION) + 1.0
    project.examples.loc[moved, "split"] = "train"
    project.rows = sorted([*project.rows, (digest, 1, view)], key=lambda row: row[:2])
    project.write()
    return view


def test_a_ledger_that_did_not_count_vectors_is_compared_by_label(oslo, capsys):
    site.run("oslo")
    (line,) = site.LEDGER.read_text().splitlines()
    entry = json.loads(line)
    entry["added"] = {d: label.partition("\n")[0] for d, label in entry["added"].items()}
    site.LEDGER.write_text(json.dumps(entry) + "\n")
    oslo.relabel(3, "bees")
    site.run("oslo")
    assert "1 example of class ants differs from submission 1" in capsys.readouterr().out
    assert site.PAGE.read_text().count("| 40 | 1 | none |") == 1
    assert Ledger(site.LEDGER).held[1].keys() == entry["added"].keys()
    into_training(oslo)
    site.run("oslo")
    assert "1 example of class ants differs from submission 2" in capsys.readouterr().out


def test_features_of_another_power_do_not_give_an_example_away(oslo, capsys):
    site.run("oslo")
    oslo.set(train={"power": 0.5})
    oslo.relabel(3, "bees")
    site.run("oslo")
    assert "warning" not in capsys.readouterr().out


def test_the_sum_of_a_class_of_one_example_is_its_vector_hence_the_bound(oslo):
    lonely = int(used(oslo).index[oslo.examples["split"][used(oslo).index] == "val"][0])
    oslo.relabel(lonely, "moths")
    with pytest.raises(DataError, match=r"class moths has 1 example, but a sum of fewer than 5"):
        site.run("oslo")
    assert not Path("site").exists()
    site.run("oslo", least=1)
    digest = oslo.examples["digest"][lonely]
    (vector,) = [row[2] for row in oslo.rows if row[0] == digest]
    told = sums_of().class_sums[2]
    np.testing.assert_allclose(told, vector.astype(np.float32), atol=1e-9)


def test_with_fewer_rows_than_features_one_can_test_who_was_there(oslo):
    """The sums of n < d rows span these rows, and hardly any other."""
    random = np.random.default_rng(0)
    oslo.rows = [(d, v, random.standard_normal(200)) for d, v, _ in oslo.rows]
    oslo.write()
    site.run("oslo")
    gram, splits = sums_of().gram, oslo.splits(["ants", "bees"])
    inside = np.concatenate([splits[n].features for n in ("train", "val")]).astype(float)
    values, vectors = np.linalg.eigh(gram)
    assert (values > 1e-9 * values[-1]).sum() == len(inside) < 200
    outside = vectors[:, values <= 1e-9 * values[-1]]

    def beyond(row):
        return np.linalg.norm(row @ outside) / np.linalg.norm(row)

    assert max(map(beyond, inside)) < 1e-6
    assert min(map(beyond, splits["test"].features)) > 0.1
    assert "can test almost without error whether it is one of them" in site.PAGE.read_text()


def test_with_fewer_than_twice_as_many_rows_one_can_as_well(oslo):
    """xᵀ(XᵀX)⁻¹x is at most 1 for each row x of X."""
    random = np.random.default_rng(0)
    oslo.rows = [(d, v, random.standard_normal(60)) for d, v, _ in oslo.rows]
    oslo.write()
    site.run("oslo")
    splits, inverse = oslo.splits(["ants", "bees"]), np.linalg.inv(sums_of().gram)
    inside = np.concatenate([splits[n].features for n in ("train", "val")]).astype(float)
    assert 60 < len(inside) < 120

    def told(rows):
        return np.einsum("nd,de,ne->n", rows, inverse, rows)

    assert told(inside).max() <= 1 + 1e-9
    assert (told(splits["test"].features.astype(float)) > 1).mean() >= 0.9
    assert "can test whether it is one of them" in site.PAGE.read_text()


def test_no_vector_digest_or_path_is_in_what_leaves(oslo):
    site.run("oslo")
    sent = b"".join(file.read_bytes() for file in FOLDER.iterdir())
    for digest, _, vector in oslo.rows:
        for form in (np.float32, np.float64):
            assert vector.astype(form).tobytes() not in sent
        assert digest.encode() not in sent
    assert b"data/raw" not in sent


def test_what_left_is_in_the_ledger_and_a_torn_line_is_not(oslo):
    site.run("oslo")
    whole = site.LEDGER.read_text()
    site.LEDGER.write_text(whole + '{"number": 2, "when": "20')  # killed while it wrote
    oslo.relabel(3, "bees")
    site.run("oslo")
    entries = Ledger(site.LEDGER).entries
    assert [entry.number for entry in entries] == [1, 2]
    assert entries[1].added == {oslo.examples["digest"][3]: "bees\n2"}  # it has two views
    assert site.LEDGER.read_text().startswith(whole)
    assert entries[0].id == entries[1].id
    torn = '{"number": 3, "added": {"a": "Käfer"'.encode()[:-5]  # within a letter
    site.LEDGER.write_bytes(site.LEDGER.read_bytes() + torn)
    assert len(Ledger(site.LEDGER).entries) == 2
    site.LEDGER.write_text("nonsense\n" + whole)
    with pytest.raises(DataError, match="line 1, cannot be read"):
        site.run("oslo")


def test_two_that_submit_at_once_do_not_lose_a_line(oslo):
    site.run("oslo")
    late = Ledger(site.LEDGER)
    oslo.relabel(3, "bees")
    site.run("oslo")
    told = vars(late.entries[0])
    names = ("when", "site", "id", "of", "settings", "sums")
    with pytest.raises(DataError, match="another process changed"):
        late.append({}, **{name: told[name] for name in names})
    assert len(Ledger(site.LEDGER).entries) == 2


@pytest.mark.parametrize("begun", [True, False])
def test_one_that_submits_while_another_writes_loses_no_line(begun, tmp_path, monkeypatch):
    """The other comes as the first has looked and is about to write, and has time to finish."""
    file, ended = tmp_path / "ledger.jsonl", {}
    told = {name: "x" for name in ("when", "site", "id", "of", "settings", "sums")}
    if begun:
        Ledger(file).append({"a": "ants"}, **told)

    def append(ledger, digest):
        try:
            ledger.append({digest: "bees"}, **told)
            ended[digest] = "written"
        except DataError as error:
            ended[digest] = str(error)

    first, other = Ledger(file), threading.Thread(target=append, args=(Ledger(file), "c"))
    dumps = json.dumps

    def slowly(*content, **options):
        if not other.ident:  # else it is the other itself that asks
            other.start()
            other.join(0.3)
        return dumps(*content, **options)

    monkeypatch.setattr(json, "dumps", slowly)
    append(first, "b")
    other.join()
    held = [digest for entry in Ledger(file).entries[begun:] for digest in entry.added]
    # which of the two threads comes to note its end first is chance
    assert ended == {"b": "written", "c": f"another process changed {file}; run the command again"}
    assert held == ["b"]


def test_a_project_keeps_its_name(oslo):
    site.run("oslo")
    with pytest.raises(DataError, match="this project has submitted as oslo"):
        site.run("bergen")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"name": "../oslo"}, "is not a name for a site"),
        ({"clip": 1.0}, "--clip needs --epsilon: add it, or leave out --clip"),
        ({"delta": 1e-6}, "--delta needs --epsilon"),
        ({"epsilon": 1.0}, "--epsilon needs --clip"),
        ({"epsilon": -1.0, "clip": 1.0}, "have to be above 0"),
        ({"epsilon": 1.0, "clip": 1.0, "delta": 1.0}, "between 0 and 1"),
    ],
)
def test_what_is_asked_for_in_vain_is_a_line(oslo, asked, said):
    with pytest.raises(ParamsError, match=said):
        site.run(**{"name": "oslo"} | asked)
    assert not Path("site").exists()


def test_too_few_examples_in_all_are_refused(tmp_path, oslo, monkeypatch):
    few = Site(tmp_path / "few", 0, {"ants": 9, "bees": 9})
    monkeypatch.chdir(few.folder)
    with pytest.raises(
        DataError, match="sums of 16 examples would reveal too much about each: use 20"
    ):
        site.run("few")


def test_another_task_and_counts_of_terms_are_refused(oslo):
    write_manifest(oslo.examples, "vector", MANIFEST, task="regression")
    with pytest.raises(DataError, match="joined only for classification"):
        site.run("oslo")


def test_noise_leaves_no_exact_count_and_is_drawn_once(oslo, capsys):
    site.run("oslo", epsilon=8.0, clip=4.0)
    first = submission.read(FOLDER)
    assert first.examples is None
    assert not (first.sums.rows == np.round(first.sums.rows)).all()
    about = json.loads((FOLDER / "submission.json").read_text())
    assert about["noise"]["epsilon"] == 8.0
    assert about["noise"]["total_epsilon"] == pytest.approx(8.0, rel=1e-3)
    assert "(8, 1e-05)-differentially private" in site.PAGE.read_text()
    site.run("oslo", epsilon=8.0, clip=4.0)
    assert "nothing changed" in capsys.readouterr().out

    # Drawn again it costs more, since the mean of both has less noise.
    shutil.rmtree(FOLDER)
    site.run("oslo", epsilon=8.0, clip=4.0)
    again = submission.read(FOLDER)
    assert not np.array_equal(again.sums.gram, first.sums.gram)
    assert 8 < again.about["noise"]["total_epsilon"] < 16
    assert again.number == 2


def test_noise_does_not_undo_a_submission_without(oslo, capsys):
    site.run("oslo")
    site.run("oslo", epsilon=8.0, clip=4.0)
    assert "no bound, because one of them had no noise" in capsys.readouterr().out
    assert submission.read(FOLDER).about["noise"]["total_epsilon"] is None
    assert "An earlier submission had no noise" in site.PAGE.read_text()


def test_the_page_of_many_classes_shows_the_smallest(tmp_path, oslo, monkeypatch):
    many = Site(tmp_path / "many", 0, {f"c{n:03}": 7 + (n == 0) for n in range(110)}, views=0)
    monkeypatch.chdir(many.folder)
    site.run("many")
    text = site.PAGE.read_text()
    assert "The 100 smallest of 110 classes are shown." in text
    rows = [line for line in csv.reader(text.splitlines(), delimiter="|") if len(line) == 4]
    assert sum(row[1].strip().startswith("c") for row in rows) == 101  # and the heading
