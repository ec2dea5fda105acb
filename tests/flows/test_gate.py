"""What the gate says of two results, and what becomes of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from toys import FlowRun, Toy

from flows.compared import beside_reference
from flows.dvc.pool import Pool
from flows.gate import Gate, stop_if_wrong
from flows.guard import ANSWERS, KEPT, Guard
from flows.reference import FETCHED, FILE, Reference
from pipeline.core.errors import ParamsError
from pipeline.core.paths import MANIFEST, PARAMS, PREDICTIONS
from pipeline.evaluation.paired import Comparison
from pipeline.tables.manifest import write_manifest
from tests.conftest import ROOT

PLAN = {"train": {"lock": "dvc.lock", "uncached": []}}


def result(root: Path, right: int, of: int = 100) -> dict[str, Any]:
    """The files of a run whose model is right about so many; the metrics."""
    paths = [f"{number}.jpg" for number in range(of)]
    predicted = ["cat" if number < right else "dog" for number in range(of)]
    for file in (MANIFEST, PREDICTIONS):
        (root / file).parent.mkdir(exist_ok=True)
    table = pd.DataFrame({"path": paths, "label": "cat", "predicted": predicted})
    table["probability"] = 0.9
    table.to_csv(root / PREDICTIONS, index=False)
    digests = [f"{number:064x}" for number in range(of)]
    pd.DataFrame({"path": paths, "digest": digests}).to_parquet(root / MANIFEST)
    (root / PARAMS).write_text("evaluate: {}\n")
    return {"reports/metrics.json": {"test": {"accuracy": right / of, "other": right}}}


@pytest.mark.parametrize(
    ("before", "now", "said", "does"),
    [
        (80, 95, "better; test.accuracy is 0.9500 and was 0.8000 on the 100 test examples", "take"),
        (95, 80, "worse; test.accuracy is 0.8000 and was 0.9500 on the 100 test examples", "fail"),
        (90, 92, "cannot tell: about 470 more test examples would show a difference of", "keep"),
    ],
)
def test_the_answer_decides_as_the_gate_says(
    tmp_path: Path, before: int, now: int, said: str, does: str
) -> None:
    guard = Guard(Gate(when_cannot_tell="keep"), tmp_path, PLAN, result(tmp_path, before))
    decision = guard.decide([], result(tmp_path, now))
    assert decision is not None
    assert decision.words.startswith(said)
    assert decision.does == does


def test_a_misspelt_parameter_is_refused_in_one_line() -> None:
    stop_if_wrong({"when_worse": "keep", "margin": 0.1})
    with pytest.raises(ParamsError, match=r"^--gate: when_wors: .*; the gate takes metric, better"):
        stop_if_wrong({"when_wors": "keep"})


def test_with_a_margin_only_the_figures_are_compared(tmp_path: Path) -> None:
    guard = Guard(Gate(margin=0.015), tmp_path, PLAN, result(tmp_path, 90))
    assert not (tmp_path / KEPT / ANSWERS).exists()
    assert guard.decide([], result(tmp_path, 89)) is None
    decision = guard.decide([], result(tmp_path, 88))
    assert decision is not None
    assert decision.does == "fail"
    assert decision.words == (
        "test.accuracy is 0.88 and was 0.9: worse by 0.02, which is more than the margin of 0.015"
    )


def test_what_the_answers_do_not_tell_is_compared_by_its_figures(tmp_path: Path) -> None:
    guard = Guard(Gate(metric="test.other"), tmp_path, PLAN, result(tmp_path, 90))
    decision = guard.decide([], result(tmp_path, 89))
    assert decision is not None
    assert "test.other is 89 and was 90: worse by 1" in decision.words
    (tmp_path / PREDICTIONS).unlink()
    gone = Guard(Gate(), tmp_path, PLAN, {}).decide([], result(tmp_path, 91))
    assert gone is not None  # what an earlier run had begun with is there
    assert gone.words.startswith("cannot tell")


def test_a_result_that_is_the_same_and_one_without_a_past_pass(tmp_path: Path) -> None:
    same = result(tmp_path, 90)
    gate = Gate(when_better="fail", when_worse="fail", when_cannot_tell="fail")
    assert Guard(gate, tmp_path / "new", PLAN, {}).decide(["train"], same) is None
    guard = Guard(gate, tmp_path, PLAN, same)
    assert guard.decide([], same) is None
    failed = guard.decide(["train"], same)
    assert failed is not None
    assert (failed.words, failed.does) == ("train failed", "fail")
    lost = guard.decide([], {"reports/metrics.json": {"test": {}}})
    assert lost is not None
    assert lost.words == "the metrics of this run have no test.accuracy"


def test_a_metric_that_no_run_has_is_said(tmp_path: Path) -> None:
    before = result(tmp_path, 90)
    guard = Guard(Gate(metric="accuracy"), tmp_path, PLAN, before)
    words = "not compared: the metrics have no accuracy; give the gate one that they have"
    assert guard.decide([], result(tmp_path, 50)) == (words, "take", False)
    assert guard.decide([], before) is None  # nothing has changed
    assert guard.decide(["train"], result(tmp_path, 50)) is None
    named = Guard(Gate(), tmp_path / "new", PLAN, {})  # the first run that measures anything
    assert named.decide([], before) is None


def test_prefect_yaml_says_what_each_answer_does() -> None:
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in declared:
        given = deployment["parameters"]["gate"]
        assert set(given) == set(Gate.model_fields) - {"better", "margin"}
        assert Gate(**given) == Gate()
    assert Gate(**json.loads('{"metric": "test.accuracy", "margin": 0.01}')).when_worse == "fail"


def of_numbers(root: Path, error: float, of: int = 100) -> dict[str, Any]:
    """The files of a run whose model is so far off; the metrics, with R² if it is known."""
    metrics = result(root, 0, of)["reports/metrics.json"]
    manifest = pd.read_parquet(root / MANIFEST)
    manifest["target:x"] = [float(number % 10) for number in range(of)]
    write_manifest(manifest, "vector", root / MANIFEST, task="regression")
    table = pd.read_csv(root / PREDICTIONS)[["path", "label"]]
    wrong = [error * (-1) ** number * (1 + number % 3) / 2 for number in range(of)]
    table["predicted(x)"] = manifest["target:x"] + wrong
    table.to_csv(root / PREDICTIONS, index=False)
    metrics["test"] = {"mae": error, "rmse": error, "r2": 1 - error**2 / 8}
    return {"reports/metrics.json": metrics}


def test_without_a_metric_it_is_the_tasks_own(tmp_path: Path) -> None:
    guard = Guard(Gate(), tmp_path, PLAN, of_numbers(tmp_path, 1.0))
    decision = guard.decide([], of_numbers(tmp_path, 1.5))
    assert decision is not None
    assert decision.does == "fail"
    assert decision.words.startswith("worse; test.r2 is 0.6")
    several = {"reports/metrics.json": {"test": {"mean_average_precision": 0.8}}}
    assert Gate().metric_in(several) == "test.mean_average_precision"
    assert Gate().metric_in({}) == "test.accuracy"
    assert Gate(metric="test.mae").metric_in(several) == "test.mae"


@pytest.mark.parametrize(("now", "does"), [(0.5, "take"), (1.5, "fail")])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_an_error_is_better_lower_unless_it_is_said(
    tmp_path: Path, now: float, does: str, margin: float | None
) -> None:
    gate = Gate(metric="test.mae", margin=margin)
    decision = Guard(gate, tmp_path, PLAN, of_numbers(tmp_path, 1.0)).decide(
        [], of_numbers(tmp_path, now)
    )
    assert (decision.does if decision else "take") == does
    assert not Gate(metric="test.mae", better="higher").lower_is_better("test.mae")
    assert Gate().lower_is_better("test.loss")
    assert not Gate().lower_is_better("test.of_somebody")


def test_models_of_two_tasks_are_not_compared(tmp_path: Path) -> None:
    gate = Gate(when_cannot_tell="keep")
    guard = Guard(gate, tmp_path, PLAN, result(tmp_path, 90))
    decision = guard.decide([], of_numbers(tmp_path, 1.0))
    assert decision == (
        "the task was classification and is regression now, so the two models are not compared",
        "keep",
        True,
    )


# A pipeline whose model is wrong about as many of 153 test examples as a file says.
NIGHT = """
import json, pathlib, shutil
wrong = int(pathlib.Path("wrong.txt").read_text())
for folder in ("data", "reports"):
    pathlib.Path(folder).mkdir(exist_ok=True)
shutil.copy("examples.parquet", "data/manifest.parquet")
rows = [f"{n}.jpg,cat,{'dog' if n < wrong else 'cat'},0.9" for n in range(153)]
text = "\\n".join(["path,label,predicted,probability", *rows, ""])
pathlib.Path("reports/predictions.csv").write_text(text)
figures = {"test": {"accuracy": 1 - wrong / 153}}
pathlib.Path("reports/metrics.json").write_text(json.dumps(figures))
"""


def night(toy: Toy, wrong: int, **gate: Any) -> FlowRun:
    (toy.root / "wrong.txt").write_text(str(wrong))
    return toy.flow("--gate", json.dumps(gate))


def wrong_now(toy: Toy) -> int:
    return (toy.root / PREDICTIONS).read_text().count(",dog,")


@pytest.fixture
def nightly(toy: Toy) -> Toy:
    """A model that is right about everything; the first reference is not made yet."""
    (toy.root / "night.py").write_text(NIGHT)
    (toy.root / PARAMS).write_text("evaluate: {}\n")
    rows = {"path": [f"{n}.jpg" for n in range(153)], "digest": [f"{n:064x}" for n in range(153)]}
    pd.DataFrame(rows).to_parquet(toy.root / "examples.parquet")
    stage = {
        "cmd": "python night.py",
        "deps": ["night.py", "wrong.txt", "examples.parquet"],
        "outs": [str(MANIFEST), str(PREDICTIONS)],
        "metrics": [{"reports/metrics.json": {"cache": False}}],
    }
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    return toy


@pytest.mark.slow
def test_many_small_losses_do_not_add_up(nightly: Toy, tmp_path: Path) -> None:
    toy = nightly
    assert night(toy, 0).code == 0
    first = json.loads((toy.root / FILE).read_text())
    toy.commit()
    taken = night(toy, 5)
    assert taken.state["type"] == "COMPLETED"
    beside = "compared with the reference at p ≤ 0.01"
    said = f"{beside}: cannot tell; test.accuracy is 0.9673 and was 1.0000 on the 153 test examples"
    assert said in taken.state["message"]
    refused = night(toy, 10)  # which cannot be distinguished from the night before
    assert refused.state["type"] == "FAILED"
    assert f"{beside}: worse; test.accuracy is 0.9346" in refused.state["message"]
    assert "compared with the last result: cannot tell" in refused.state["message"]
    assert f"delete {FILE}" in refused.state["message"]
    assert wrong_now(toy) == 5
    assert json.loads((toy.root / FILE).read_text()) == first


@pytest.mark.slow
def test_a_clone_knows_the_reference_as_far_as_it_has_the_cache(
    nightly: Toy, tmp_path: Path
) -> None:
    toy = nightly
    for wrong in (0, 5):
        night(toy, wrong)
    first = json.loads((toy.root / FILE).read_text())
    toy.commit()
    template = tmp_path / "template"
    toy.run("git", "clone", "--quiet", str(toy.root), str(template))
    with Toy(tmp_path / "clone", toy.api, template, ":".join(toy.auth)) as clone:
        local = clone.root / ".dvc" / "config.local"
        local.write_text(f"[cache]\n    dir = {toy.root}/.dvc/cache\n")
        clone.run("dvc", "checkout")
        said = "compared with the reference at p ≤ 0.01: worse"
        assert said in night(clone, 10).state["message"]
        assert wrong_now(clone) == 5
        local.unlink()
        unknown = night(clone, 9)
        assert unknown.state["type"] == "COMPLETED"
        (line,) = unknown.state["message"].splitlines()
        said = f"{PREDICTIONS} with MD5 {first['predictions']} is neither in DVC's cache nor"
        assert f"not compared with the reference: {said}" in line
        assert json.loads((clone.root / FILE).read_text()) == first


@pytest.mark.slow
def test_the_second_result_in_a_row_that_is_better_is_the_reference(nightly: Toy) -> None:
    toy = nightly
    toy.commit()
    night(toy, 20)
    first = json.loads((toy.root / FILE).read_text())
    assert first["commit"] == toy.run("git", "rev-parse", "HEAD").strip()
    assert "if the next one is also better than the reference, it" in night(toy, 5).state["message"]
    assert json.loads((toy.root / FILE).read_text()) == first
    assert "this result is the reference now" in night(toy, 6).state["message"]
    now = json.loads((toy.root / FILE).read_text())
    assert now["predictions"] != first["predictions"]
    assert now["manifest"] == first["manifest"]


def test_answers_come_from_the_cache_or_from_a_remote(
    tmp_path: Path, dvc_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    shutil.copytree(dvc_template, root, symlinks=True)
    monkeypatch.chdir(root)
    with Pool(root) as pool:
        assert not Reference(root, pool.ask, None).become()  # no stage makes answers
        result(root, 90)
        outs = [{str(file): {"persist": True}} for file in (MANIFEST, PREDICTIONS)]
        stage = {"cmd": "true", "outs": outs}
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
        pool.ask("reproduce", stage="evaluate", force=False)
        assert Reference(root, pool.ask, None).become()
        answers = (root / PREDICTIONS).read_bytes()
        remote = tmp_path / "remote"
        with (root / ".dvc" / "config").open("a") as config:
            config.write(f"['remote \"store\"']\n    url = {remote}\n")
        pool.ask("push", remote="store")
        for kept in (True, False):
            if not kept:
                shutil.rmtree(root / ".dvc" / "cache")
            found = Reference(root, pool.ask, "store").answers()
            assert found == root / FETCHED
            assert (root / FETCHED / PREDICTIONS).read_bytes() == answers
            shutil.rmtree(root / FETCHED)
        shutil.rmtree(root / ".dvc" / "cache")
        shutil.rmtree(remote)
        for name in ("store", None):  # the second is none
            said = Reference(root, pool.ask, name).answers()
            assert isinstance(said, str)
            assert "is neither in DVC's cache nor in a remote" in said
            assert len(said.splitlines()) == 1
        (root / FILE).write_text('{"commit": null, "predictions": "../../x", "manifest": ""}')
        with pytest.raises(ParamsError, match=f"{FILE} cannot be read: restore it with"):
            Reference(root, pool.ask, None)


@pytest.mark.parametrize(
    ("last", "reference", "does"),
    [
        ("cannot tell", "cannot tell", "take"),
        ("cannot tell", "worse", "fail"),
        ("better", "worse", "take"),  # else the worse of the two would stay
        ("worse", "better", "fail"),
        ("cannot tell", "not tested: too few groups", "fail"),
        ("not tested: too few groups", "cannot tell", "fail"),
    ],
)
def test_the_fate_of_a_result_hangs_on_both_comparisons(
    last: Any, reference: Any, does: str
) -> None:
    found = [Comparison(answer, 100, 0.9, 0.8, "") for answer in (last, reference)]
    assert Gate().fate(*found, lower=False) == does
    risen = Comparison("not tested: too few groups", 100, 0.8, 0.9, "")
    assert Gate().fate(risen, None, lower=False) == "take"
    assert Gate(when_worse="keep").fate(risen, None, lower=True) == "keep"


def test_a_reference_that_shares_less_than_half_is_called_old() -> None:
    said = [
        beside_reference(
            "test.accuracy", Comparison("cannot tell", shared, 0.9, 0.8, "", unseen=0.12), "it", 100
        )
        for shared in (50, 49, 0)
    ]
    assert all("compared with it at p ≤ 0.01: cannot tell" in words for words in said)
    assert all("; a fall of less than 0.12 can go unseen" in words for words in said)
    assert "it is old" not in said[0]
    assert said[1].endswith("; it is old: of its 100 test examples 49 are left")
    assert said[2].endswith("; it is old: of its 100 test examples 0 are left")


def test_a_patient_counts_once_however_many_examples_it_has(tmp_path: Path) -> None:
    def of_groups(right: int, size: int) -> dict[str, Any]:
        metrics = result(tmp_path, right)
        manifest = pd.read_parquet(tmp_path / MANIFEST)
        manifest["group"] = [f"patient {number // size}" for number in range(100)]
        manifest.to_parquet(tmp_path / MANIFEST)
        return metrics

    for size, said in (
        (1, "worse; test.accuracy is 0.9000 and was 1.0000 on the 100 test examples that both"),
        (10, "cannot tell: about 16,000 more test examples, of 1,600 more groups, would"),
        (25, "not tested: too few groups; test.accuracy is 0.9000 and was 1.0000 on the 100 test"),
    ):
        guard = Guard(Gate(when_worse="keep"), tmp_path, PLAN, of_groups(100, size))
        decision = guard.decide([], of_groups(90, size))
        assert decision is not None
        assert decision.words.startswith(said)
        assert decision.does == ("take" if size == 10 else "keep")
        shutil.rmtree(tmp_path / KEPT)
