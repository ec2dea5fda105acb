"""`corrections/`: what people correct is in the manifest, and the source stays as it is."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows import why
from pipeline import ingest, kinds
from pipeline.core import params
from pipeline.core.errors import DataError
from pipeline.core.paths import CONFIRMED, CORRECTIONS, MANIFEST, REFUSED
from pipeline.tables import confirmed, corrections
from pipeline.tables.corrections import COLUMNS, Correction
from pipeline.tables.manifest import TARGET, read_manifest
from tests.conftest import Project

TABLE = Path("data/raw/texts.csv")
TEXTS = {f"text {number}": ("ant", "bee")[number % 2] for number in range(40)}


@pytest.fixture
def texts(project: Project) -> Project:
    """Forty texts, of which one is there twice with both labels."""
    project.set(**{"ingest.kind": "text", "ingest.source": "csv", "ingest.path": str(TABLE)})
    file = project.folder / "params.yaml"
    document = yaml.safe_load(file.read_text())
    document["augment"] = {"views": 0}
    file.write_text(yaml.safe_dump(document))
    CORRECTIONS.mkdir()
    Path(CORRECTIONS, "README.md").write_text("For people.\n")
    write([*TEXTS.items(), ("both", "ant"), ("both", "bee")])
    return project


def write(rows: list[tuple[str, ...]], columns: str = "text,label") -> None:
    lines = [columns, *map(",".join, rows)]
    TABLE.write_text("".join(f"{line}\n" for line in lines))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def correct(name: str, *rows: tuple[str, str, str, str]) -> Path:
    """Write a file of corrections: a text, and what is corrected."""
    file = CORRECTIONS / f"{name}.csv"
    corrections.write(file, [Correction(digest(text), *of, name, "seen") for text, *of in rows])
    return file


def run(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What ingest prints, without the line on the split."""
    capsys.readouterr()
    ingest.ingest()
    lines = [line.removeprefix("ingest: ") for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if "correction" in line or "contradict" in line]


def of(text: str) -> pd.Series:
    return read_manifest(MANIFEST).set_index("digest").loc[digest(text)]


def test_two_peoples_files_are_joined_and_the_source_stays(
    texts: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys) == []
    before, source, plain = MANIFEST.read_bytes(), TABLE.read_bytes(), read_manifest(MANIFEST)
    assert confirmed.read(CONFIRMED) == set()
    correct(
        "anna",
        ("text 0", "label", "ant", "bee"),
        ("text 1", "exclude", "", "yes"),
        ("text 3", "label", "bee", "bee"),
        ("both", "label", "ant", "bee"),  # and so the two copies agree
    )
    correct("bert", ("text 5", "group", "", "twins"), ("text 3", "label", "bee", "bee"))
    assert run(capsys) == [
        "5 corrections apply: 2 labels changed, 1 moved to another group, 1 excluded, 1 confirmed"
    ]
    assert (of("text 0").label, of("both").label, of("text 5").group) == ("bee", "bee", "twins")
    refused = pd.read_csv(REFUSED).set_index("path")["reason"]
    assert refused[f"{TABLE}#2"] == "excluded by corrections/anna.csv: seen"
    assert f"{TABLE}#42" in refused.index  # the second of two copies that agree
    assert len(read_manifest(MANIFEST)) == len(plain)  # one less, one more
    labels = {"text 0": "bee", "text 3": "bee", "both": "bee"}
    assert confirmed.read(CONFIRMED) == {(digest(text), of) for text, of in labels.items()}
    assert TABLE.read_bytes() == source
    for file in CORRECTIONS.glob("*.csv"):
        file.unlink()
    assert run(capsys) == []
    assert MANIFEST.read_bytes() == before


def test_a_mark_changes_nothing_but_the_table_of_marks(
    texts: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest.ingest()
    before = MANIFEST.read_bytes(), REFUSED.read_bytes()
    correct("anna", ("text 3", "label", "bee", "bee"))
    assert run(capsys) == ["1 correction applies: 1 confirmed"]
    assert (MANIFEST.read_bytes(), REFUSED.read_bytes()) == before
    assert confirmed.paths(read_manifest(MANIFEST), confirmed.read(CONFIRMED)) == {f"{TABLE}#4"}
    assert confirmed.paths(read_manifest(MANIFEST), {(digest("text 3"), "ant")}) == set()


def test_what_does_not_apply_any_more_is_named(
    texts: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    correct(
        "anna",
        ("gone", "label", "ant", "bee"),
        ("text 0", "label", "wasp", "bee"),
        ("text 1", "group", "herd", ""),
        ("text 2", "target:size", "1", "2"),
        ("text 3", "label", "bee", "ant"),
    )
    applies, line = run(capsys)
    assert applies == "1 correction applies: 1 label changed"
    assert line.startswith("warning: 4 corrections do not apply any more: ")
    for reason in ("no example has this digest", "its label is 'ant'", "its group is ''"):
        assert f"({reason})" in line
    assert "ingest.targets has no column 'size'" in line
    assert "corrections/anna.csv, line 2" in line


def test_of_two_that_contradict_each_other_neither_applies(
    texts: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    correct("anna", ("text 0", "label", "ant", "bee"), ("text 2", "label", "ant", "bee"))
    correct("bert", ("text 0", "label", "ant", "ant"), ("text 2", "exclude", "", "yes"))
    (CORRECTIONS / "notes.ods").write_bytes(b"")
    line = 2 + (digest("text 0") > digest("text 2"))
    assert run(capsys) == [
        "warning: corrections/notes.ods is not a table of corrections and is ignored",
        "warning: corrections/anna.csv and corrections/bert.csv contradict each other about the"
        f" label of {digest('text 0')[:12]} (lines {line}, {line}): ant or bee; neither applies",
        "2 corrections apply: 1 label changed, 1 excluded",
    ]
    assert of("text 0").label == "ant"
    assert confirmed.read(CONFIRMED) == {(digest("text 2"), "bee")}


HEADER = ",".join(COLUMNS)
DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "its columns should be digest, field, old, new, who, why, but it is empty"),
        (b"path,label\na,b\n", "but it has path, label; correct it, or move it elsewhere"),
        (b"digest;field;old;new;who;why\n", "but it has digest;field;old;new;who;why"),
        (f"{HEADER}\n{DIGEST},label,a".encode(), "line 2 has 3 cells instead of 6"),
        (f"{HEADER}\n<<<<<<< HEAD\n".encode(), "line 2 has 1 cells instead of 6"),
        (f"{HEADER}\n{DIGEST[1:]},label,a,b,,\n".encode(), "is not a digest of 64 hexadecimal"),
        (f"{HEADER}\n{DIGEST},lable,a,b,,\n".encode(), "line 2: the field is 'lable'; it should"),
        (f"{HEADER}\n\n{DIGEST},exclude,,no,,\n".encode(), "line 3: to exclude an example, new"),
        (f"{HEADER}\n{DIGEST},label,a,,,\n".encode(), "line 2: there is no new label"),
        (f'{HEADER}\n{DIGEST},label,"a\n'.encode(), "unexpected end of data"),
        (b"\xff\xfe" + HEADER.encode("utf-16-le"), "is not in UTF-8 (byte 0): save it as such"),
    ],
)
def test_what_is_no_table_of_corrections_is_a_line_and_nothing_is_lost(
    texts: Project, text: bytes, words: str
) -> None:
    correct("anna", ("text 0", "label", "ant", "bee"))
    for name in ("bert", "carl"):
        (CORRECTIONS / f"{name}.csv").write_bytes(text)
    with pytest.raises(DataError) as stopped:
        ingest.ingest()
    line = str(stopped.value)
    assert len(line.splitlines()) == 1
    assert words in line
    assert line.startswith("corrections/bert.csv")
    assert "; corrections/carl.csv" in line
    assert (CORRECTIONS / "bert.csv").read_bytes() == text


def test_a_new_label_has_to_be_one(texts: Project) -> None:
    correct("anna", ("text 0", "label", "ant", "be\x07e"))
    with pytest.raises(DataError, match=r"^corrections/anna\.csv, line 2: label contains a contr"):
        ingest.ingest()


def test_labels_and_targets_of_other_tasks(
    texts: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    texts.set(**{"ingest.task": "multilabel"})
    write([(f"text {i}", ("moss|wood", "wood", "moss")[i % 3]) for i in range(60)])
    correct("anna", ("text 0", "label", "wood|moss", "wood"), ("text 1", "label", "wood", "wood"))
    assert run(capsys) == ["2 corrections apply: 1 label changed, 1 confirmed"]
    assert (of("text 0").label, of("text 0")[f"{TARGET}moss"]) == ("wood", 0)

    texts.set(**{"ingest.task": "regression", "ingest.targets": ["age", "size"]})
    write([(f"text {i}", str(i), str(i / 10)) for i in range(60)], "text,age,size")
    correct(
        "anna",
        ("text 3", "target:age", "3.0", "30"),
        ("text 4", "label", "age=4, size=0.4", "age=4, size=0.4"),
        ("text 5", "target:size", "0.5", "0.5"),
    )
    assert run(capsys) == ["3 corrections apply: 1 target changed, 2 confirmed"]
    assert (of("text 3").label, of("text 3")[f"{TARGET}age"]) == ("age=30, size=0.3", 30)
    correct("anna", ("text 3", "target:age", "3", "old"))
    with pytest.raises(DataError, match=r"line 2: the target age is 'old', which is not a number"):
        ingest.ingest()


def test_why_names_the_file_of_a_correction(texts: Project) -> None:
    def coming() -> why.Examples:
        settings = params.load(kinds.schema)
        before = read_manifest(MANIFEST)
        found = why.coming_manifest(settings, before, set(), kinds.named("text"))
        assert found is not None
        return why.example_changes(before, found)

    correct("bert", ("text 7", "label", "bee", "bee"), ("text 9", "exclude", "", "yes"))
    ingest.ingest()
    assert coming() == why.Examples()
    (CORRECTIONS / "bert.csv").unlink()
    file = correct("anna", ("text 0", "label", "ant", "bee"), ("text 1", "exclude", "", "yes"))
    here = f"{TABLE}#"
    found = coming()
    assert found == why.Examples(
        added=(f"{here}10",),
        relabelled=(why.Change(f"{here}1", "ant", "bee", str(file)),),
        excluded=(why.Change(f"{here}2", "bee", "", str(file)),),
        unconfirmed=(f"{here}8",),
    )
    words = why._examples_in_words(found, kinds.named("text"))
    assert f"1 text relabelled: {here}1 (ant → bee, corrections/anna.csv)" in words
    assert f"1 text excluded: {here}2 (corrections/anna.csv)" in words
    ingest.ingest()
    assert coming() == why.Examples()


CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(str.strip)


@given(rows=st.lists(st.tuples(CELL.filter(bool), CELL.filter(bool), CELL, CELL), max_size=5))
def test_what_is_written_is_read_again(
    rows: list[tuple[str, str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "some.csv"
    some = [Correction(digest(row[0]), "label", *row) for row in rows]
    corrections.write(file, some)
    read = [one._replace(file=Path(), line=0) for one in corrections.read(file)]
    assert read == sorted(some)
    corrections.write(file, reversed(some))
    assert [one._replace(file=Path(), line=0) for one in corrections.read(file)] == sorted(some)
