"""`headstart predict` on real files: what it names, what it writes, and what a bad file does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import kinds
from pipeline.core.errors import DataError, ParamsError, RefusedError
from pipeline.examples import files
from pipeline.serving import predict
from tests.conftest import ROOT


@pytest.fixture
def project(bundled, monkeypatch):
    monkeypatch.chdir(bundled)
    return bundled


def headstart(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "headstart", "predict", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_evaluate_and_predict_say_the_same_of_the_test_pictures(project, tmp_path):
    evaluated = pd.read_csv("reports/predictions.csv")
    predict.run(Path("bundle"), evaluated["path"], csv=tmp_path / "said.csv")
    said = pd.read_csv(tmp_path / "said.csv")
    assert said["path"].tolist() == evaluated["path"].tolist()
    assert said["class"].tolist() == evaluated["predicted"].tolist()
    np.testing.assert_allclose(said["probability"], evaluated["probability"], atol=1e-5)
    assert said["error"].isna().all()


def test_two_tables_in_one_file_are_refused(project, tmp_path):
    with pytest.raises(ParamsError, match="two tables would be written to"):
        predict.run(Path("bundle"), ["data/raw"], csv=tmp_path / "a", jsonl=tmp_path / "a")


def test_an_input_is_not_overwritten(project, tmp_path):
    table, link = tmp_path / "a.csv", tmp_path / "link.csv"
    table.write_text("text\nsome words\n")
    link.symlink_to(table)
    for asked in (str(table), f"{table}#1", f"{tmp_path}/a.*"):
        for into in (table, link):
            with pytest.raises(ParamsError, match=r"a\.csv is one of the inputs"):
                predict.run(Path("bundle"), [asked], csv=into)
    assert table.read_text() == "text\nsome words\n"


def test_in_a_folder_a_table_with_examples_is_not_overwritten_and_an_older_one_is(
    by_hand, tmp_path
):
    bundle, table, said = by_hand("classification"), tmp_path / "a.parquet", tmp_path / "said.csv"
    pq.write_table(pa.table({"vector": [[1.0, 0.0, 0.0, 0.0]]}), table)
    with pytest.raises(ParamsError, match=r"a\.parquet is one of the inputs"):
        predict.run(bundle, [str(tmp_path)], parquet=table)
    for names in (["a.parquet#1"], ["a.parquet#1", "said.csv"]):
        predict.run(bundle, [str(tmp_path)], csv=said)
        assert [Path(path).name for path in pd.read_csv(said)["path"]] == names


def test_a_subfolder_that_cannot_be_read_is_a_file_of_the_folder(tmp_path, monkeypatch):
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "closed")  # root may read all
    assert tmp_path / "closed" in predict.inside(tmp_path)
    assert tmp_path / "open" not in predict.inside(tmp_path)


def test_links_that_lead_to_no_file_are_refused_and_not_left_out(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "folder.csv").symlink_to(tmp_path / "elsewhere")
    (folder / "nowhere.csv").symlink_to(tmp_path / "gone.csv")
    found = predict.inside(folder)
    assert [path.name for path in found] == ["folder.csv", "nowhere.csv"]
    for path in found:
        assert predict.examples_in(path, kinds.named("text"), in_folder=True) == [path]
        with pytest.raises(RefusedError, match="cannot be read"):
            files.load(path, 1000)


def test_all_tables_tell_the_same_and_a_bad_file_is_a_row(project, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(Path("data/raw/shapes/disc/0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff but not for long")
    (folder / "empty.png").touch()
    (folder / ".hidden").write_text("not a picture")
    tables = {kind: tmp_path / f"said.{kind}" for kind in ("csv", "jsonl", "parquet")}
    predict.run(Path("bundle"), [str(folder)], **tables, heat_maps=tmp_path / "maps", neighbours=2)
    lines = [json.loads(line) for line in tables["jsonl"].read_text().splitlines()]
    assert [Path(row["path"]).name for row in lines] == ["broken.jpg", "empty.png", "a.png"]
    assert [row["class"] for row in lines[:2]] == [None, None]
    assert lines[1]["error"] == "empty file"
    good = lines[2]
    assert good["error"] is None
    assert 0.5 <= good["probability"] <= 1
    assert [one["label"] for one in good["neighbours"]] == ["disc", "disc"]
    assert Image.open(good["heat_map"]).size == (224, 224)

    in_parquet = pq.read_table(tables["parquet"]).to_pylist()
    in_csv = pd.read_csv(tables["csv"], keep_default_na=False).to_dict("records")
    for name in ("path", "class", "error", "heat_map"):
        assert [row[name] for row in in_parquet] == [row.get(name) for row in lines]
        assert [row[name] or None for row in in_csv] == [row.get(name) for row in lines]
    assert json.loads(in_csv[2]["neighbours"]) == good["neighbours"]
    assert in_parquet[2]["neighbours"][0]["path"] == good["neighbours"][0]["path"]


@pytest.mark.slow
def test_of_a_name_that_is_no_utf_8_the_odd_bytes_are_spelt_out(project, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    good = Path("data/raw/shapes/disc/0.png").read_bytes()
    (folder / os.fsdecode(b"a\xff.png")).write_bytes(good)
    (folder / os.fsdecode(b"b\xff.png")).write_bytes(b"no picture")
    (folder / f"{'č' * 120}.png").write_bytes(good)  # as long as a name may be, in bytes
    tables = {kind: tmp_path / f"said.{kind}" for kind in ("csv", "jsonl", "parquet")}
    maps = tmp_path / os.fsdecode(b"maps\xff")
    predict.run(Path("bundle"), [str(folder)], **tables, heat_maps=maps)
    read = [
        pd.read_csv(tables["csv"]).to_dict("records"),
        [json.loads(line) for line in tables["jsonl"].read_text().splitlines()],
        pq.read_table(tables["parquet"]).to_pylist(),
    ]
    for first, second, long in read:
        assert first["path"] == f"{folder}/a\\udcff.png"
        assert first["class"] == "disc"
        assert second["path"] == f"{folder}/b\\udcff.png"
        assert second["error"].startswith("not a picture")
        drawn, cut = sorted(maps.iterdir())
        assert Path(long["heat_map"]).name == cut.name
        assert cut.name.startswith("č" * 100 + "-")
        assert first["heat_map"] == f"{tmp_path}/maps\\udcff/{drawn.name}"
        assert drawn.name.startswith("a\\udcff-")
    said = headstart("bundle", folder)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[1].endswith("a\\udcff.png")


def test_a_name_does_nothing_to_the_terminal(project, tmp_path, capsys):
    (tmp_path / "a\x1b]0;owned\x07\n\x1b[31m.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 1 inputs could not be read as pictures"):
        predict.run(Path("bundle"), [str(tmp_path)])
    line = capsys.readouterr().out.splitlines()[1]
    assert f"{tmp_path}/a\\x1b]0;owned\\x07\\n\\x1b[31m.png: not a picture" in line


def test_the_command_prints_a_table_and_goes_on_after_a_bad_file(project, tmp_path):
    bad = tmp_path / "notes.txt"
    bad.write_text("<html>")
    said = headstart("bundle", bad, "data/raw/shapes/*/1*.png", "data/raw/shapes/disc/0.png")
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[0].split() == ["probability", "class", "path"]
    assert "it is a web page" in lines[1]
    lines = [line for line in lines if not line.endswith("unlike anything in training")]
    assert len(lines) == 1 + 1 + 11 + 1
    assert lines[-1].endswith("disc  data/raw/shapes/disc/0.png".replace("disc  ", "disc    "))
    assert "1 of 13 inputs could not be read" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bundle", "nothing/*.jpg"], "names no file"),
        (["bundle", "params.yaml", "--neighbours", "-1"], "should be 0 or more"),
        (["models", "params.yaml"], "is not a bundle"),
    ],
)
def test_a_mistake_is_one_line(project, arguments, said):
    done = headstart(*arguments)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_predict_loads_neither_torch_nor_dvc_nor_prefect(project):
    script = (
        "import sys; from headstart import cli; sys.argv[1:] = ['predict', 'bundle', 'data/raw'];"
        "cli.main(); print(sorted({'torch', 'dvc', 'prefect', 'cv2', 'pandas', 'threadpoolctl'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_files_are_never_far_ahead_of_answers():
    from concurrent.futures import ThreadPoolExecutor

    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        for done, found in enumerate(predict.in_order(pool, lambda x: x * x, items(), ahead=5)):
            assert found == done**2
            assert len(taken) <= done + 6
    assert len(taken) == 50


def test_a_folder_without_a_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match="names no file"):
        list(predict.files([str(tmp_path)]))


def test_onnx_runtime_tells_nobody(tmp_path: Path) -> None:
    """By itself it would keep an identifier of the machine, and send what it runs to its makers."""
    script = (
        "from pipeline.serving import classifier; import os, onnxruntime;"
        "onnxruntime.get_available_providers(); onnxruntime.SessionOptions();"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    quiet = ("ORT_DISABLE_TELEMETRY", "CI")
    plain = {name: value for name, value in os.environ.items() if name not in quiet}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=plain | home, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr
    assert not list(tmp_path.iterdir())
