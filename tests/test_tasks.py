"""The tasks at `ingest`: what is taken, what is refused in one line, and what is not done again."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import augment, bundle, checks, evaluate, extract, ingest, report, train
from pipeline.core.errors import DataError, HeadstartError, ParamsError
from pipeline.core.paths import MANIFEST, REFUSED
from pipeline.sources.surfaces import COLUMNS
from pipeline.tasks.multilabel.targets import labels_in, presence
from pipeline.tasks.regression.targets import number
from tests.conftest import ROOT, Project

SPLITS = ("train", "train", "val", "test")
HEADER = ["text", "split"]
STAGES = (
    *(ingest.ingest, augment.augment, extract.extract, train.train, evaluate.evaluate),
    *(checks.checks, bundle.bundle, report.report),
)
TABLE = "data/raw/t"

Given = Callable[..., None]


@pytest.fixture
def given(project: Project) -> Given:
    """Lays a table of texts, asks for a task, and has `ingest` read it."""

    def give(
        header: Sequence[str],
        cells: Sequence[Sequence[str]] | None,
        task: str = "multilabel",
        targets: object = None,
        rows: int = 24,
        **more: object,
    ) -> None:
        """Rows whose cells behind text and split are the given ones, over and over."""
        asked = {"kind": "text", "source": "csv", "path": f"{TABLE}.csv", "max_refused": 0.5}
        asked |= {"task": task, "targets": targets} | more
        project.set(**{f"ingest.{name}": value for name, value in asked.items()})
        project.set(**{"extract.backbone": "tf_idf"})
        document = yaml.safe_load(Path("params.yaml").read_text())
        Path("params.yaml").write_text(yaml.safe_dump(document | {"augment": {"views": 0}}))
        if cells is not None:
            with Path(f"{TABLE}.csv").open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow([*HEADER, *header])
                for number in range(rows):
                    turn, which = divmod(number, len(cells))
                    split = SPLITS[(turn + which) % 4]
                    table.writerow([f"text {number}", split, *cells[which]])
        ingest.ingest()

    return give


def targets_of() -> pd.DataFrame:
    """The manifest's columns of what is learned."""
    table = pd.read_parquet(MANIFEST)
    return table[[name for name in table if name.startswith("target:")]]


GOOD = [["1", "0"], ["0", "1"], ["1", "1"]]
SUN = ["sun", "rain"]

# The cells of a table, what is asked, and what the line says.
STOPPED = {
    "numbers for classes": (["label"], [[f"{i}.5"] for i in range(24)], "classification", None,
                            r"24 different numbers \(0\.5, .*set ingest\.task to regression"),
    "numbers for several": (["label"], [[f"{i}.5"] for i in range(24)], "multilabel", None,
                            r"24 different numbers .*set ingest\.task to regression"),
    "only separators": (["label"], [["|"], [" | |"]], "multilabel", None,
                        r"24 of 24 rows were refused.*: an empty list of labels.*ingest\.targets"),
    "everywhere": (["label"], [["a|b"], ["a"]], "multilabel", None,
                   "no training example lacks the label a, so nothing can be learned from it"),
    "nowhere": (SUN, [["1", "0"], ["0", ""], ["1", "0"]], "multilabel", SUN,
                "no training example has the label rain, so nothing can be learned from it"),
    "empty columns": (SUN, [["", ""]], "multilabel", SUN, "none of its labels is known"),
    "words for labels": (SUN, [["yes", "no"]], "multilabel", SUN,
                         "the label sun is 'yes', which should be 1, 0 or empty"),
    "shares for labels": (SUN, [["0.5", "1"]], "multilabel", SUN, r"the label sun is '0\.5'"),
    "constant": (["label"], [["2.50"]], "regression", None,
                 r"the target is 2\.5 in all 1[0-9] training examples"),
    "one of two constant": (SUN, [["1", "5"], ["1", "6"]], "regression", SUN,
                            "the target sun is 1 in all 1[0-9] training examples"),
    "commas": (["label"], [["1,5"], ["2,5"]], "regression", None,
               r"the target is '1,5', which is not a number: write 1\.5, with a point"),
    "thousands": (["label"], [["1.234,5"]], "regression", None, r"'1\.234,5', which is not"),
    "not finite": (["label"], [["nan"]], "regression", None, "'nan', which is not a finite 32-bit"),
    "too large": (["label"], [["1e39"]], "regression", None, "'1e39', which is not a finite"),
    "beyond floats": (["label"], [["1e400"]], "regression", None, "'1e400', which is not a finite"),
    "infinite": (SUN, [["inf", "1"]], "regression", SUN, "the target sun is 'inf', which is not"),
    "truth values": (["label"], [["true"]], "regression", None, "'true', which is not a number"),
    "Python's digits": (["label"], [["1_000"]], "regression", None, "'1_000', which is not"),
    "words": (["label"], [["brick"]], "regression", None, "the target is 'brick', which is not"),
    "no such column": (SUN, GOOD, "multilabel", ["sun", "snow"], "has no column snow; it has"),
    "the split": (SUN, GOOD, "multilabel", ["sun", "split"], "names the column split of"),
    "the example": (SUN, GOOD, "regression", ["text"], "names the column text of"),
    "a slice as predictions have": (["sun", "low(sun)"], GOOD, "regression", ["sun"],
                                    r"the column low\(sun\) has a name that reports/predictions"),
    "no row": (SUN, [], "multilabel", SUN, "has no files"),
    "no row, joined": (["label"], [], "multilabel", None, "has no files"),
    "no row, numbers": (SUN, [], "regression", SUN, "has no files"),
}  # fmt: skip


@pytest.mark.parametrize("what", STOPPED)
def test_a_table_of_which_nothing_can_be_learned_is_one_line(given: Given, what: str) -> None:
    header, cells, task, targets, words = STOPPED[what]
    with pytest.raises(DataError, match=words) as error:
        given(header, cells, task, targets, rows=24 if cells else 0)
    assert "\n" not in str(error.value)
    assert not MANIFEST.exists()  # of which `extract` would begin


@pytest.mark.parametrize(
    ("targets", "task", "words"),
    [
        (["sun", " sun"], "multilabel", "targets contains the same column twice"),
        (["sun|moon"], "multilabel", r"should not contain \|"),
        ([" "], "multilabel", "should name a column"),
        ([], "multilabel", r"targets is \[\]"),
        ([1, 2], "multilabel", r"targets\.0 is 1"),
        (["sun"], "classification", "does not apply to ingest.task classification"),
    ],
)
def test_targets_that_name_no_columns_are_one_line(
    given: Given, targets: object, task: str, words: str
) -> None:
    with pytest.raises(ParamsError, match=words) as error:
        given(SUN, GOOD, task, targets)
    assert "\n" not in str(error.value)


def test_rows_that_cannot_be_used_are_refused_with_their_reason(given: Given) -> None:
    given(["label"], [["a|b"], ["a||b"], ["b"], ["a"], ["|"], ["a"], ["b"], ["b|a"]])
    refused = pd.read_csv(REFUSED)
    assert refused["reason"].str.contains(r"an empty label beside a \| in 'a\|\|b'").sum() == 3
    assert refused["reason"].str.startswith("an empty list of labels").sum() == 3
    assert targets_of().columns.tolist() == ["target:a", "target:b"]
    assert pd.read_parquet(MANIFEST)["label"].isin(["a|b", "a", "b"]).all()


def test_cells_may_be_written_in_several_ways(given: Given) -> None:
    ways = [["1", "0"], [" 1.0 ", "TRUE"], ["true", "nan"], ["0.0", "False"], ["", "1"]]
    given(SUN, ways, targets=SUN, rows=25)
    found = targets_of()
    assert [(found["target:sun"] == value).sum() for value in (1, 0)] == [15, 5]
    assert found["target:rain"].isna().sum() == 5

    given(["label"], [["+1"], [" 2 "], ["3."], ["4e0"], ["-5E-1"]], "regression", rows=25)
    assert sorted(set(targets_of()["target:target"])) == [-0.5, 1, 2, 3, 4]


def test_names_are_compared_in_one_form(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    given(["e\u0301", "É"], GOOD, targets=["é", "É"])
    assert targets_of().columns.tolist() == ["target:é", "target:É"]
    assert "labels differ only in case: é, É" in capsys.readouterr().out


def test_a_separator_in_a_class_is_told(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    given(["label"], [["a|b"], ["b"], ["a"]], "classification")
    assert "warning: labels contain |: a|b; to learn several labels" in capsys.readouterr().out
    assert targets_of().empty


def test_other_columns_slice_and_the_label_is_left_aside(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    given(["sun", "rain", "label"], [[*cells, "x"] for cells in GOOD], "regression", ["sun"])
    assert "the column label is ignored" in capsys.readouterr().out
    assert "slice:rain" in pd.read_parquet(MANIFEST)

    given(["sun", "label"], GOOD, "regression", ["sun", "label"])
    assert "is ignored" not in capsys.readouterr().out


def test_the_same_example_with_other_targets_is_refused(given: Given) -> None:
    table = Path(f"{TABLE}.csv")
    rows = [f"text {i},train,{i}" for i in range(20)] + ["text 0,train,7", "text 1,train,1.0"]
    table.write_text("\n".join(["text,split,sun", *rows]) + "\n")
    given([], None, "regression", ["sun"])
    refused = pd.read_csv(REFUSED)
    assert refused["reason"].tolist()[:2] == ["the same text has the labels 0 and 7"] * 2
    assert len(refused) == 3  # of the two alike the first is taken


def test_many_labels_take_seconds(given: Given) -> None:
    names = [f"l{number}" for number in range(2000)]
    cells = [[str(int((i + j) % 3 == 0)) for j in range(2000)] for i in range(3)]
    given(names, cells, targets=names, rows=60)
    assert targets_of().shape == (60, 2000)


@pytest.mark.parametrize(
    ("column", "task", "targets", "words"),
    [
        ({"label": [["a", "b"], ["b"]] * 12}, "multilabel", None, "label is list<.*>; it should"),
        ({"label": [["a", "b"], ["b"]] * 12}, "classification", None, "label is list<.*>"),
        ({"sun": [[1.0], [2.0]] * 12}, "regression", ["sun"], r"'\[1\.0\]', which is not a number"),
        ({"label": [1.5, 2.0] * 12}, "regression", None, ""),
        ({"sun": [True, False, None, True] * 6, "snow": [0.0, 1.0] * 12}, "multilabel",
         ["sun", "snow"], ""),
        ({"sun": [1.0, 2.0] * 12, "label": [["a"], ["b"]] * 12}, "regression", ["sun"], ""),
    ],
)  # fmt: skip
def test_parquet_has_other_types(
    given: Given, column: dict[str, list[object]], task: str, targets: list[str], words: str
) -> None:
    own = {"text": [f"text {i}" for i in range(24)], "split": [*SPLITS] * 6}
    pq.write_table(pa.table(own | column), f"{TABLE}.parquet")
    found = ""
    try:
        given([], None, task, targets, source="parquet", path=f"{TABLE}.parquet")
    except HeadstartError as error:
        found = str(error)
    assert pd.Series([found]).str.contains(words or "^$")[0], found


def test_a_column_of_lists_that_ingest_label_names_is_refused(given: Given) -> None:
    own = {"text": [f"text {i}" for i in range(24)], "tags": [["a", "b"], ["b"]] * 12}
    pq.write_table(pa.table(own), f"{TABLE}.parquet")
    asked = {"source": "parquet", "path": f"{TABLE}.parquet", "label": "tags"}
    with pytest.raises(DataError, match=r"the column tags is list<.*>; it should be text"):
        given([], None, "multilabel", None, **asked)


def test_vectors_are_no_targets(given: Given) -> None:
    vectors = pa.array([[1.0, i] for i in range(24)])
    pq.write_table(pa.table({"vector": vectors, "split": [*SPLITS] * 6}), f"{TABLE}.parquet")
    asked = {"kind": "vector", "source": "parquet", "path": f"{TABLE}.parquet"}
    with pytest.raises(DataError, match=r"names the column vector of data/raw/t\.parquet"):
        given([], None, "regression", ["vector"], **asked)


def test_another_task_computes_no_view(
    project: Project, lite0: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set(**{"augment.views": 1})
    places = [("train", 0, 192), ("val", 320, 384), ("test", 448, 512)]
    rows = [
        (name, f"{name}.png", split, 0, top, 256, bottom, 2, 1)
        for name in ("brick", "gravel")
        for split, top, bottom in places
    ]
    with Path("data/raw/surfaces.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    computed = []
    for task in ("classification", "multilabel"):
        project.set(**{"ingest.task": task})
        for stage in (ingest.ingest, augment.augment, extract.extract):
            stage()
        said = capsys.readouterr().out.splitlines()[-1]
        computed.append(int(said.partition(" reused, ")[2].split()[0]))
    assert computed == [16, 0]
    assert targets_of().columns.tolist() == ["target:brick", "target:gravel"]


# What docs/tasks.md says of a cell of a table.
SENTENCES = [
    (labels_in, ("|",)),
    (labels_in, ("brick||wood",)),
    (presence, ("wood", "yes")),
    (number, ("", "1,5")),
    (number, ("", "nan")),
]


@pytest.mark.parametrize(("read", "given"), SENTENCES)
def test_the_page_tells_the_sentences(read: Callable[..., object], given: tuple[str, ...]) -> None:
    page = (ROOT / "docs" / "tasks.md").read_text().replace("\\|", "|")
    with pytest.raises(ValueError, match=r"^\S") as error:
        read(*given)
    assert f"`{error.value}`" in page


def test_numbers_of_which_one_is_wrong_go_from_the_table_to_the_report(project: Project) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 4))
    numbers = vectors.sum(axis=1)
    numbers[0] += 40  # a slip of the pen
    columns = {"vector": pa.array(vectors.tolist()), "label": [f"{one:.4f}" for one in numbers]}
    pq.write_table(pa.table(columns | {"split": [*SPLITS] * 15}), f"{TABLE}.parquet")
    settings = yaml.safe_load((ROOT / "examples" / "regression" / "diabetes.yaml").read_text())
    settings["ingest"]["path"] = f"{TABLE}.parquet"
    settings["evaluate"]["bootstrap"] = 20
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    for stage in STAGES:
        stage()
    issues = pd.read_csv("reports/checks/label_issues.csv")
    assert issues["path"].tolist() == [f"{TABLE}.parquet#1"]
    page = Path("reports/report.html").read_text()
    assert "typical errors off" in page
    assert json.loads(Path("reports/metrics.json").read_text())["test"]["r2"] > 0
