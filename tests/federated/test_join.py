"""Joining what sites sent: nothing of a good site is lost, and the rest is named in a line."""

import hashlib
import io
import json
import operator
import os
import shutil
import sys
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load, load_file, save

import headstart
from headstart import cli
from pipeline.core.errors import DataError, ParamsError
from pipeline.federated import join, privacy, site, submission, sums
from pipeline.heads.penalty import PATH
from pipeline.serving.classifier import Classifier
from pipeline.tables.features import view_0
from tests.federated.sites import Site

COUNTS = {
    "lima": {"ants": 20, "bees": 30},
    "oslo": {"bees": 30, "wasps": 20},
    "pune": {"ants": 10, "bees": 20, "wasps": 30},
}
CLASSES = ["ants", "bees", "wasps"]


@pytest.fixture(scope="module")
def sent(tmp_path_factory, exported):
    """Three sites with a submission each; not to be changed."""
    folder = tmp_path_factory.mktemp("sites")
    projects = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(exported.parent))
        for seed, (name, counts) in enumerate(COUNTS.items()):
            projects[name] = Site(folder / name, seed, counts)
            with projects[name].inside():
                site.run(name)
    return projects


@pytest.fixture(scope="module")
def without_oslo(sent, exported, tmp_path_factory):
    """What is written if oslo is not among the sites."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copy(sent["lima"].folder / "params.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(exported.parent))
        patch.chdir(folder)
        join.run([sent[name].folder / "site" / name for name in ("lima", "pune")])
        return outputs()


@pytest.fixture
def server(tmp_path, sent, exported, monkeypatch):
    """The folder of the server, and copies of what was sent."""
    monkeypatch.setenv("HEADSTART_STORE", str(exported.parent))
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(sent["lima"].folder / "params.yaml", folder)
    for name, project in sent.items():
        shutil.copytree(project.folder / "site" / name, folder / name)
    monkeypatch.chdir(folder)
    return folder


NAMES = [Path(name) for name in COUNTS]


def outputs(folder="joined"):
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def rewrite(folder, change=None, **about):
    """Change a submission as another program would that knows the format: checksums fit."""
    told = json.loads((folder / "submission.json").read_text()) | about
    held = load((folder / "sums.safetensors").read_bytes())
    if change:
        change(held)
    numbers = save(held)
    told["sums"] = hashlib.sha256(numbers).hexdigest()
    told["checksum"] = submission.checksum(told)
    (folder / "submission.json").write_text(json.dumps(told))
    (folder / "sums.safetensors").write_bytes(numbers)


def test_a_joined_head_is_a_bundle_that_answers_as_the_pooled_head_does(server, sent):
    join.run(NAMES)
    model = headstart.load("joined/bundle")
    assert list(model.classes) == CLASSES
    parts = [view_0({"test": one.splits(CLASSES)["test"]}) for one in sent.values()]
    examples = np.concatenate([part.features for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    rows = [one.splits(CLASSES)[name] for one in sent.values() for name in ("train", "val")]
    pooled = sums.of(
        np.concatenate([row.features for row in rows]),
        np.concatenate([row.labels for row in rows]),
        CLASSES,
    )
    (wanted,) = sums.ridge(pooled, [0.01])
    answers = model.predict(examples)
    places = [CLASSES.index(answer.label) for answer in answers]
    assert places == wanted.logits(examples).argmax(axis=1).tolist()
    assert (places == labels).mean() > 0.6
    assert answers[0].probabilities.keys() == set(CLASSES)
    assert model.about["head"]["sites"] == list(COUNTS)
    assert "usual" not in model.about
    buffer = io.BytesIO()
    np.save(buffer, examples[0])
    answer = Classifier(Path("joined/bundle"), explains=True).answer(
        buffer.getvalue(), heat=True, neighbours=2
    )
    assert answer.neighbours == ()  # no example is here


def test_moments_are_there_for_others(server):
    join.run(NAMES)
    held = load_file("joined/moments.safetensors")
    assert {name: array.shape for name, array in held.items()} == {
        "mean": (6,), "covariance": (6, 6), "class_means": (3, 6), "within": (6, 6), "rows": (3,),
    }  # fmt: skip
    whole = sums.joined([submission.read(folder).sums for folder in NAMES])
    np.testing.assert_array_equal(held["covariance"], whole.covariance)


def test_the_order_of_the_folders_changes_no_byte_and_a_late_site_joins_later(server, capsys):
    join.run(NAMES)
    at_once = outputs()
    join.run([NAMES[2], NAMES[0]], into=Path("late"))
    assert json.loads(Path("late/sites.json").read_text())["left_out"] == []
    join.run([NAMES[2], NAMES[0], NAMES[1]], into=Path("late"))
    assert outputs("late") == at_once
    assert "3 sites joined (lima 1, oslo 1, pune 1): 224 vectors of 3 classes" in (
        capsys.readouterr().out
    )


def test_nearest_means_and_several_penalties(server, capsys):
    join.run(NAMES, optimizer="nearest_mean")
    assert headstart.load("joined/bundle").about["head"]["hyperparameters"] == {
        "optimizer": "nearest_mean"
    }
    join.run(NAMES, weight_decay=[1e9, 0.01])
    assert "ridge with weight_decay 0.01" in capsys.readouterr().out
    with pytest.raises(ParamsError, match="0 or more"):
        join.run(NAMES, weight_decay=[-1.0])
    parameters = Path("params.yaml")
    document = yaml.safe_load(parameters.read_text())
    document["train"]["weight_decay"] = "auto"
    parameters.write_text(yaml.safe_dump(document))
    join.run(NAMES)
    decay = headstart.load("joined/bundle").about["head"]["hyperparameters"]["weight_decay"]
    assert decay in PATH


def not_finite(held):
    held["gram"][3] = np.nan


def negative(held):
    held["gram"][0] = -held["gram"][0]


def doubled(held):
    held["class_sums"] *= 10


def too_few_rows(held):
    held["rows"] = held["examples"] - 1


def halves(held):
    held["rows"] += 0.5


def single(held):
    held["gram"] = held["gram"].astype(np.float32)


def short(held):
    held["gram"] = held["gram"][:-1]


BACKBONE = {"name": "identity", "fingerprint": "12" * 32, "dimension": 6}
NOISE = {"epsilon": 8.0, "delta": 1e-5, "clip": 4.0, "spread": 1.0, "total_epsilon": None}


def refusal(folder):
    """Why a submission is left out; empty where it is not."""
    try:
        submission.read(folder)
    except DataError as error:
        return str(error)
    return ""


def replace_in(folder, old, new):
    """Change the text of `submission.json`; the checksum, of what it says, is not looked at yet."""
    file = folder / "submission.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


WRONG = {
    "gone": (lambda folder: shutil.rmtree(folder), "there is no submission.json"),
    "half sent": (
        lambda folder: (folder / "sums.safetensors").unlink(),
        "sums.safetensors: cannot be read (No such file or directory)",
    ),
    "truncated": (
        lambda folder: (folder / "sums.safetensors").write_bytes(
            (folder / "sums.safetensors").read_bytes()[:-8]
        ),
        "sums.safetensors is not the file that submission.json describes",
    ),
    "altered": (
        lambda folder: (folder / "submission.json").write_text(
            (folder / "submission.json").read_text().replace('"power": 1.0', '"power": 0.5')
        ),
        "submission.json was changed after it was written",
    ),
    "no json": (
        lambda folder: (folder / "submission.json").write_text("{"),
        "submission.json cannot be read",
    ),
    "another schema": (lambda folder: rewrite(folder, schema=9), "has schema 9"),
    "no field": (
        lambda folder: rewrite(folder, classes=None),
        "it is not a submission of schema 1",
    ),
    "nan": (lambda folder: rewrite(folder, not_finite), "gram holds numbers that are not finite"),
    "negative": (lambda folder: rewrite(folder, negative), "no examples can have such sums"),
    "doubled": (lambda folder: rewrite(folder, doubled), "no examples can have such sums"),
    "counts": (lambda folder: rewrite(folder, too_few_rows), "which is impossible"),
    "half rows": (lambda folder: rewrite(folder, halves), "which is impossible"),
    "float32": (lambda folder: rewrite(folder, single), "gram is float32"),
    "short": (lambda folder: rewrite(folder, short), "gram is float64 [20], but for 2 classes"),
    "no fingerprint": (
        lambda folder: rewrite(folder, backbone={"name": "identity", "dimension": 6}),
        "'fingerprint' is missing",
    ),
    "no strength": (
        lambda folder: rewrite(folder, noise=NOISE | {"spread": float("nan")}),
        "submission.json cannot be read (NaN is not a finite number)",
    ),
    "infinite number": (
        lambda folder: rewrite(folder, number=float("inf")),
        "submission.json cannot be read (Infinity is not a finite number)",
    ),
    "infinite dimension": (
        lambda folder: replace_in(folder, '"dimension": 6', '"dimension": 1e999'),
        "submission.json cannot be read (1e999 is not a finite number)",
    ),
    "dimension of a terabyte": (
        lambda folder: rewrite(folder, backbone=BACKBONE | {"dimension": 10**9}),
        "2 classes and 1,000,000,000 features needs about",
    ),
    "number of 400 digits": (
        lambda folder: rewrite(folder, number=10**400),
        "`number` and `dimension` have to be whole numbers above 0",
    ),
    "nested": (
        lambda folder: (folder / "submission.json").write_text("[" * 200_000),
        "submission.json is nested too deeply",
    ),
    "nested noise": (
        lambda folder: rewrite(
            folder, noise=NOISE | {"more": reduce(lambda a, _: [a], "." * 400, 1)}
        ),
        "a parameter of the noise is not a number",
    ),
    "half a letter": (lambda folder: rewrite(folder, classes=["a", "\ud800"]), "surrogates"),
    "a name with escapes": (
        lambda folder: rewrite(folder, site="\x1b]0;mine\x07\x1b[31m\nfederate: all is well"),
        r"'\x1b]0;mine\x07\x1b[31m\nfederate: all is well' is not a name for a site",
    ),
    "classes with escapes": (
        lambda folder: rewrite(folder, halves, classes=["\x1b[31mred", "\x1b]0;b\x07"]),
        r"class \x1b[31mred has",
    ),
    "a device": (
        lambda folder: (
            (folder / "sums.safetensors").unlink(),
            (folder / "sums.safetensors").symlink_to("/dev/zero"),
        ),
        "sums.safetensors: not a regular file",
    ),
    "too long": (
        lambda folder: os.truncate(folder / "sums.safetensors", 2**40),
        "sums.safetensors: too large: 1,099,512 MB",
    ),
    "huge sums of classes": (
        lambda folder: rewrite(folder, lambda held: held["class_sums"].__imul__(1e200)),
        "class_sums holds numbers that are too large for that many rows",
    ),
    "a huge product": (
        lambda folder: rewrite(folder, lambda held: held["gram"].__setitem__(0, 1e308)),
        "gram holds numbers that are too large for that many rows",
    ),
    "countless rows": (
        lambda folder: rewrite(folder, lambda held: held["rows"].__imul__(1e300)),
        "which is impossible",
    ),
    "noise that is none": (
        lambda folder: rewrite(folder, negative, noise={"spread": 1e-300}),
        "'epsilon' is missing",
    ),
    "noise too weak for what is stated": (
        lambda folder: rewrite(folder, negative, noise=NOISE | {"spread": 1e-300}),
        "the noise has spread 1e-300, but epsilon 8, delta 1e-05 and clip 4 need 16.5 or more",
    ),
    "nothing but an epsilon of no worth": (
        lambda folder: rewrite(folder, negative, noise=NOISE | {"epsilon": 1e12, "spread": 1e-2}),
        "no examples can have such sums: an eigenvalue is",
    ),
    "more than noise explains": (
        lambda folder: rewrite(
            folder, lambda held: held["class_sums"].__imul__(100), noise=NOISE | {"spread": 17.0}
        ),
        "class_sums holds numbers that are too large for that many rows",
    ),
    "a huge product with noise": (
        lambda folder: rewrite(
            folder,
            lambda held: held["gram"].__setitem__(0, 1e308),
            noise=NOISE | {"spread": 17.0},
        ),
        "gram holds numbers that are too large for that many rows",
    ),
    "negative rows with noise": (
        lambda folder: rewrite(
            folder, lambda held: held["rows"].__imul__(-100), noise=NOISE | {"spread": 17.0}
        ),
        "rows, which noise of this spread cannot explain",
    ),
    "power": (lambda folder: rewrite(folder, power=0.5), "train.power is 0.5, but 1.0 in this"),
    "precision": (
        lambda folder: rewrite(folder, precision="bfloat16"),
        "extract.precision is 'bfloat16', but 'float32' in this",
    ),
    "kind": (lambda folder: rewrite(folder, kind="image"), "examples of the kind is 'image'"),
    "backbone": (
        lambda folder: rewrite(
            folder, backbone={"name": "other", "fingerprint": "12" * 32, "dimension": 6}
        ),
        "its backbone is other (12121212), but this project has identity (",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_submission_is_left_out_in_a_line_and_the_others_are_joined(
    wrong, server, without_oslo, capsys
):
    harm, said = WRONG[wrong]
    harm(Path("oslo"))
    join.run(NAMES)
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    (line,) = lines
    assert line.startswith("federate: warning: oslo is left out: ")
    assert said in line
    ours, theirs = outputs(), dict(without_oslo)
    assert json.loads(ours.pop("sites.json"))["left_out"][0]["folder"] == "oslo"
    assert "oslo" not in theirs.pop("sites.json").decode()
    assert ours == theirs


STRANGE = (None, -1, 2.5, 1e308, 10**400, "\ud800", "\x1b[2J", [1], {"a": 1})


def places_in(content, here=()):
    """The way to every value of a JSON file."""
    for name, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*here, name)
        if isinstance(value, dict | list):
            yield from places_in(value, (*here, name))


def test_a_submission_in_which_any_value_is_another_is_joined_or_left_out_in_a_line(server):
    rewrite(Path("oslo"), noise=NOISE | {"spread": 17.0})
    about = json.loads(Path("oslo/submission.json").read_text())
    joined = False
    for *way, last in places_in(about):
        for value in STRANGE:
            changed = json.loads(json.dumps(about))
            reduce(operator.getitem, way, changed)[last] = value
            if last != "sums":  # which `rewrite` makes fit again
                rewrite(Path("oslo"), **changed)
            said = refusal(Path("oslo"))
            assert len(said.splitlines()) <= 1, (way, last, value)
            if not said and last == "weights" and not joined:  # which nobody compares
                joined = join.run(NAMES) == 0
    assert joined


def test_a_submission_with_any_odd_numbers_is_joined_or_left_out_in_a_line(server):
    """And whatever is joined gives a head of finite numbers."""
    random = np.random.default_rng(0)
    oslo, joined = Path("oslo"), 0
    before = {file: file.read_bytes() for file in oslo.iterdir()}

    def change(held):
        for _ in range(random.integers(1, 4)):
            array = held[random.choice(list(held))].reshape(-1)
            some = slice(*sorted(random.integers(0, len(array) + 1, 2)))
            factor = 10.0 ** random.integers(-308, 308) * random.choice([-1, 1])
            with np.errstate(over="ignore"):
                if random.random() < 0.5:
                    array[some] *= factor
                else:
                    array[some] = factor

    for draw in range(100):
        for file, data in before.items():
            file.write_bytes(data)
        noise = NOISE | {
            "epsilon": 10.0 ** random.integers(-3, 300),
            "clip": 10.0 ** random.integers(-300, 30),
            "spread": 10.0 ** random.integers(-300, 300),
        }
        rewrite(oslo, change, noise=noise if random.random() < 0.5 else None)
        said = refusal(oslo)
        assert len(said.splitlines()) <= 1, draw
        if not said and joined < 10:
            joined += 1
            join.run(NAMES)
            answers = headstart.load("joined/bundle").predict(np.ones((1, 6), np.float32))
            assert np.isfinite(answers[0].probability), draw
    assert joined


def exact_of(sent, clip):
    """The sums of one site's rows, shortened."""
    rows = [sent["oslo"].splits(CLASSES[1:])[name] for name in ("train", "val")]
    features = privacy.clipped(np.concatenate([row.features for row in rows]), clip)
    return sums.of(features, np.concatenate([row.labels for row in rows]), CLASSES[1:])


def taken_with(noise, found):
    """Why a submission with noise is left out; nothing where it is taken."""
    about = json.loads(Path("oslo/submission.json").read_text())
    del about["checksum"]
    numbers = submission.tensors(found, None)
    stated = vars(noise) | {"spread": found.noise, "total_epsilon": noise.epsilon}
    about |= {"noise": stated, "sums": hashlib.sha256(numbers).hexdigest()}
    submission.write(Path("oslo"), about, numbers)
    return refusal(Path("oslo"))


@pytest.mark.parametrize(("epsilon", "clip"), [(1.0, 0.5), (64.0, 4.0)])
def test_noise_that_opendp_drew_is_enough_for_what_is_stated(epsilon, clip, server, sent):
    noise = privacy.Noise(epsilon, 1e-5, clip)
    found, _ = privacy.noisy(exact_of(sent, clip), noise, rows_of_one=1)
    assert taken_with(noise, found) == ""


@pytest.mark.parametrize("epsilon", [0.5, 8.0, 64.0])
def test_no_honest_submission_with_noise_is_left_out(epsilon, server, sent):
    """The weakest noise that there may be, drawn 50 times; and wrong sums are found under it."""
    noise, wrong = privacy.Noise(epsilon, 1e-5, 2.0), []
    exact, scale = exact_of(sent, noise.clip), privacy.least_scale(noise)
    for seed in range(50):
        random = np.random.default_rng(seed)

        def noisy(array, unit, random=random):
            return array + scale * unit * random.standard_normal(array.shape)

        found = sums.Sums(
            exact.classes,
            sums.symmetric(noisy(sums.packed(exact.gram), noise.clip**2)),
            noisy(exact.class_sums, noise.clip),
            noisy(exact.rows, 1.0),
            scale * noise.clip**2,
        )
        assert taken_with(noise, found) == "", seed
        if seed < 20:
            wrong.append(taken_with(noise, replace(found, class_sums=30 * found.class_sums)))
    assert sum("too large" in said or "no examples" in said for said in wrong) > 15


@pytest.mark.parametrize(
    ("folders", "harmed", "code", "said"),
    [
        (["lima", "oslo"], None, 0, ""),
        (["lima", "lima", "again"], None, 0, ""),  # a site that is joined is not lacking
        (["lima", "oslo"], "oslo", 12, "1 of 2 submissions were left out, as the warnings say"),
        (["oslo"], "oslo", 3, "none of 1 submissions can be joined"),
    ],
)
def test_the_command_ends_with_a_code_of_its_own_if_sites_are_left_out(
    folders, harmed, code, said, server, monkeypatch, capsys
):
    shutil.copytree("lima", "again")
    if harmed:
        rewrite(Path(harmed), site="\x1b[31m")
    monkeypatch.setattr(sys, "argv", ["headstart", "federate", *folders])
    ended = 0
    try:
        cli.main()
    except SystemExit as end:
        ended = end.code
    printed = capsys.readouterr()
    assert ended == code
    assert printed.err == "" if not said else printed.err.startswith(f"federate: error: {said}")
    assert "\x1b" not in printed.out + printed.err
    assert Path("joined/bundle").exists() == (code in (0, 12))


def test_another_dimension_than_most_have_is_left_out(server, tmp_path, capsys):
    other = Site(tmp_path / "cork", 7, {"ants": 30, "bees": 30})
    other.rows = [(d, v, np.append(f, 1.0)) for d, v, f in other.rows]
    other.write()
    with other.inside():
        site.run("cork")
    join.run([other.folder / "site/cork", *NAMES])
    assert "it has 7 features, but most submissions have 6" in capsys.readouterr().out


def test_features_of_another_backbone_do_not_outvote_a_good_site(server, capsys):
    def shorter(held):
        held["gram"] = held["gram"][:15]
        held["class_sums"] = held["class_sums"][:, :5].copy()

    other = {"name": "other", "fingerprint": "12" * 32, "dimension": 5}
    for folder in NAMES[1:]:
        rewrite(folder, shorter, backbone=other)
    join.run(NAMES)
    said = capsys.readouterr().out
    assert said.count("its backbone is other (12121212), but this project has identity (") == 2
    assert "1 site joined (lima 1)" in said


def test_the_same_site_twice_counts_once_and_the_newest(server, tmp_path, capsys):
    again = Site(tmp_path / "again", 0, COUNTS["lima"])
    shutil.copytree(Path("lima"), tmp_path / "copy")
    join.run([*NAMES, tmp_path / "copy"])
    assert f"{tmp_path / 'copy'} is left out: it is the same as lima" in capsys.readouterr().out
    with again.inside():
        site.run("lima")
        again.relabel(3, "bees")
        site.run("lima")
    # The ledger of the site is that of lima: the same number of it for both.
    told = json.loads(Path("lima/submission.json").read_text())
    rewrite(again.folder / "site/lima", id=told["id"])
    join.run([*NAMES, again.folder / "site/lima"])
    said = capsys.readouterr().out
    assert "lima is left out: submission 2 of lima replaces submission 1" in said
    assert "3 sites joined (lima 2, oslo 1, pune 1)" in said


def test_two_sites_of_one_name_and_a_copy_under_another_are_left_out(server, tmp_path, capsys):
    shutil.copytree(Path("lima"), tmp_path / "twin")
    rewrite(tmp_path / "twin", id="0" * 16)
    join.run([*NAMES, tmp_path / "twin"])
    said = capsys.readouterr().out
    assert said.count("two sites have the name lima; rename one of them") == 2
    assert "2 sites joined (oslo 1, pune 1)" in said
    rewrite(tmp_path / "twin", site="mara")
    join.run([*NAMES, tmp_path / "twin"])
    assert "its sums are the same as those of lima" in capsys.readouterr().out


def test_two_submissions_of_one_number_are_left_out(server, tmp_path, capsys):
    shutil.copytree(Path("lima"), tmp_path / "other")
    rewrite(tmp_path / "other", lambda held: held["gram"].__imul__(2.0))
    join.run([*NAMES, tmp_path / "other"])
    assert (
        capsys.readouterr().out.count("lima sent two different submissions with the number 1") == 2
    )


def test_nothing_to_join_is_an_error_and_so_is_one_class(server):
    with pytest.raises(DataError, match="none of 1 submissions can be joined"):
        join.run([Path("nobody")])
    assert not Path("joined").exists()

    def one_class(held):
        for name in ("class_sums", "rows", "examples"):
            held[name] = held[name][:1]

    rewrite(Path("lima"), one_class, classes=["ants"])
    with pytest.raises(DataError, match="all sites have only the class ants"):
        join.run([Path("lima")])


def test_classes_that_differ_in_spelling_alone_are_told(server, capsys):
    rewrite(Path("oslo"), classes=["Bees", "wasps"])
    join.run(NAMES)
    assert "the classes 'Bees' and 'bees' differ only in spelling" in capsys.readouterr().out


def test_sites_with_noise_are_joined_with_sites_without(server, sent, tmp_path):
    shutil.copytree(sent["oslo"].folder, tmp_path / "oslo")
    shutil.rmtree(tmp_path / "oslo" / "site")
    loud = sent["oslo"].__class__.__new__(Site)
    loud.folder = tmp_path / "oslo"
    with loud.inside():
        site.run("oslo", epsilon=20.0, clip=5.0)
    join.run([Path("lima"), Path("pune"), loud.folder / "site/oslo"])
    model = headstart.load("joined/bundle")
    assert list(model.classes) == CLASSES
    told = {one["site"]: one for one in json.loads(Path("joined/sites.json").read_text())["sites"]}
    assert told["oslo"]["noise"]["epsilon"] == 20.0
    assert "examples" not in told["oslo"]
    # What noise alone would show is more than was set.
    assert model.about["head"]["hyperparameters"]["weight_decay"] > 0.01


def test_class_weights_that_sums_cannot_have_are_told(server, sent, capsys):
    sent["lima"].set(train={"class_weights": "balanced"})
    shutil.copy(sent["lima"].folder / "params.yaml", server)
    sent["lima"].set()
    join.run([Path("lima")])
    said = capsys.readouterr().out
    assert "warning: train.class_weights balanced is ignored: in sums of sites" in said
    assert "federate: 1 site joined (lima 1)" in said
