"""`headstart init`: a project that is whole, or not there at all."""

import csv
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dvc.repo import Repo

from flows.dvc.project import check_project
from headstart import cli, parameters
from headstart import init as making
from headstart.init import contents, examined
from headstart.init import run as init
from pipeline import kinds
from pipeline.core import lock, packages, params
from pipeline.core.errors import DataError, HeadstartError, MissingSetError
from tests.conftest import ROOT

track = making._track


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(making, "_track", lambda root, path: None)  # DVC takes a second
    return tmp_path


@pytest.fixture
def photos(here, draw_picture):
    folder = here / "meine Fotos ü"
    for name in ("disc", "square"):
        (folder / name).mkdir(parents=True)
        draw_picture(1, square=name == "square").save(folder / name / "1.png")
    return folder


def refused(*arguments, **options):
    """The one line of an error, after which the files are those that were there before."""
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    with pytest.raises(HeadstartError) as error:
        init(*arguments, **options)
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    assert "\n" not in str(error.value)
    return str(error.value)


def git(*command):
    return subprocess.run(("git", *command), check=True, capture_output=True, text=True).stdout


def ingests(folder):
    return yaml.safe_load((folder / "params.yaml").read_text())["ingest"]


def test_a_project_has_every_file_that_dvc_asks_for_and_no_code(photos, capsys, monkeypatch):
    project = Path("Projekt ä")
    monkeypatch.setattr(making, "_track", track)
    init(project, data=photos)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "init: DVC tracks data/raw/meine Fotos ü",
        "init: next: cd 'Projekt ä' && headstart repro",
    ]
    check_project(project)
    lock.check(project)
    assert not list(project.rglob("*.py"))
    assert not list(project.parent.glob(".headstart*"))
    assert (project.stat().st_mode & 0o77) == (photos.stat().st_mode & 0o77)
    copies = sorted(file.name for file in (project / "data/raw/meine Fotos ü").rglob("*.png"))
    assert copies == ["1.png", "1.png"]
    assert ingests(project)["source"] == "folder"
    with Repo(str(project)) as repo:
        lacking = {
            str(dep)
            for stage in repo.index.stages
            for dep in stage.deps
            if not dep.exists and not str(dep).startswith(("data/", "reports/"))
        }
        (ingest,) = (stage for stage in repo.index.stages if stage.addressing.endswith(":ingest"))
        assert repo.status(targets=[f"{project}/data/raw/meine Fotos ü.dvc"]) == {}
        locked = {
            line for dep in ingest.deps if dep.def_path == "headstart.lock" for line in dep.params
        }
    assert lacking <= {"models", "bundle"}
    assert {line for line in locked if line.startswith("kinds.")} == {"kinds.door", "kinds.image"}
    # Nothing is committed, and git would take no picture.
    assert git("-C", str(project), "status", "--short").startswith("?? ")
    new = git("-C", str(project), "ls-files", "--others", "--exclude-standard", "data/raw", "-z")
    assert new.split("\0")[:-1] == ["data/raw/.gitignore", "data/raw/meine Fotos ü.dvc"]


@pytest.mark.parametrize("kind", making.KINDS)
def test_the_parameters_of_a_kind_are_complete_and_have_comments(kind):
    text = parameters.of_kind(kind, "csv", "data/raw/a b")
    Path("params.yaml").write_text(text)
    settings = params.load(kinds.schema)
    assert (settings.ingest.kind, settings.ingest.path) == (kind, "data/raw/a b")
    document, shipped = yaml.safe_load(text), yaml.safe_load((ROOT / "params.yaml").read_text())
    assert document.keys() == shipped.keys()
    for section in shipped.keys() - {"ingest", "augment"}:
        assert document[section].keys() == shipped[section].keys()
    augmented = kinds.schema(kind).model_fields.keys()
    assert document["augment"].keys() | {"seed"} == augmented
    own = ROOT / "examples" / kind / "params.yaml"
    for section, values in yaml.safe_load(own.read_text()).items() if own.exists() else ():
        values = {k: v for k, v in values.items() if k not in ("source", "path")}
        assert document[section] | values == document[section]
    assert text.count("#") > 70


def test_a_project_takes_the_parameters_of_each_example():
    init(Path("project"))
    files = sorted((ROOT / "examples").glob("*/*.yaml"))
    assert len(files) == 8
    for file in files:
        shutil.copy(file, "project/params.yaml")
        params.check_file(kinds.schema, Path("project"))


@pytest.mark.parametrize(
    ("kind", "name"), [("text", "a.csv"), ("text", "a.parquet"), ("vector", "a.parquet")]
)
def test_a_table_of_examples_is_copied(kind, name):
    if name == "a.csv":
        Path(name).write_text("\ufefflabel, text\n")
    else:
        pq.write_table(pa.table({kind: [], "label": []}), name)
    init(Path("project"), kind, Path(name))
    assert (Path("project/data/raw") / name).read_bytes() == Path(name).read_bytes()
    assert ingests(Path("project"))["source"] == Path(name).suffix[1:]
    assert ingests(Path("project"))["path"] == f"data/raw/{name}"


def test_the_header_of_a_table_is_read(photos, capsys):
    table, project = Path("a.csv"), Path("project")
    table.write_text("title,label\n")
    named = f"{table.resolve()} has no column"
    assert refused(project, "text", table) == f"{named} text; it has title, label: rename yours"
    table.write_text("")
    assert "is empty: its first line should have the names" in refused(project, "text", table)
    Path("a.parquet").write_text("text,label")
    assert "cannot be read as a table: Parquet magic" in refused(project, "text", Path("a.parquet"))
    listed = photos / "labels.csv"
    listed.write_text("file,label\n")
    assert "no column path; it has file, label" in refused(project, "image", photos)
    assert "no column vector or path; it has" in refused(project, "vector", photos)
    (photos / "vectors.npy").touch()
    listed.write_text("price\n")
    capsys.readouterr()
    init(project, "vector", photos)  # its targets may be set later
    assert capsys.readouterr().out.startswith(
        f"init: warning: {listed} has no column label; it has price: name yours in"
        " ingest.label, or the columns to learn in ingest.targets\n"
    )


def test_how_a_table_is_written_is_guessed(tmp_path):
    table = tmp_path / "titles.csv"
    table.write_bytes("text;label\nGem\u00fcse im Angebot;food\n".encode("latin-1"))
    made = contents("text", examined(table, "text", tmp_path / "project"), "project")
    ingest = yaml.safe_load(made["params.yaml"])["ingest"]
    assert (ingest["encoding"], ingest["separator"], ingest["label"]) == ("latin-1", ";", "label")


def test_a_folder_with_a_table_is_read_by_it(photos):
    with (photos / "labels.csv").open("w") as stream:
        csv.writer(stream).writerows([["path", "label"], ["disc/1.png", "disc"]])
    init(Path("project"), data=photos)
    assert ingests(Path("project"))["source"] == "csv"


def test_into_a_repository_only_what_it_lacks_is_written(here, photos, capsys):
    git("init", "-q")
    git("add", photos.name)
    (here / ".gitignore").write_text("/notes\n__pycache__/")
    (here / "README.md").write_text("mine")
    (here / "requirements.txt").write_text("flask\n")
    init(None, data=photos, here=True)
    assert (here / "README.md").read_text() == "mine"
    ignored = (here / ".gitignore").read_text().splitlines()
    assert ignored[:2] == ["/notes", "__pycache__/"]
    assert len(set(ignored)) == len(ignored) > 5
    lines = (here / "requirements.txt").read_text()
    assert re.match(r"flask\n# Headstart is not on PyPI.*\nheadstart==", lines)
    # Examples that are in the folder already are not copied.
    assert ingests(here)["path"] == "meine Fotos ü"
    assert "init: git tracks meine Fotos ü\n" in capsys.readouterr().out
    check_project(here)
    assert refused(None, here=True).endswith("`headstart upgrade` brings it up to date")


def test_parents_that_are_missing_are_made(here, photos, monkeypatch):
    Path("empty").mkdir()
    assert "has no files" in refused(Path("a/b/project"), data=Path("empty"))
    init(Path("a/b/project"), data=photos)
    init(Path("a/other"))
    check_project(here / "a/b/project")
    with pytest.raises(DataError, match=r"^ingest.path in params.yaml is data/raw/pictures, which"):
        check_project(here / "a/other")
    monkeypatch.chdir("a/other")
    with pytest.raises(DataError, match=r"pictures, which does not exist"):
        cli.check()
    (here / "a/other/data/raw/pictures.dvc").touch()
    cli.check()
    monkeypatch.chdir(here)
    check_project(here / "a/other", pulls=True)
    with pytest.raises(DataError, match=r"^data/raw/pictures is missing.* or `dvc pull "):
        check_project(here / "a/other")
    assert sorted(path.name for path in here.iterdir()) == ["a", "empty", photos.name]
    assert sorted(path.name for path in (here / "a").iterdir()) == ["b", "other"]
    assert (here / "a/b").stat().st_mode == photos.stat().st_mode


def test_below_a_repository_no_other_one_is_made(here):
    git("init", "-q")
    init(Path("project"))
    (here / "there").mkdir()
    init(Path("there"), here=True)
    for folder in ("project", "there"):
        assert not (here / folder / ".git").exists()
        with Repo(str(here / folder)) as repo:
            assert repo.root_dir == str(here / folder)
            assert repo.scm.root_dir == str(here)


def test_the_current_folder_may_be_named_if_it_is_empty(here, monkeypatch, capsys):
    Path("flowers").mkdir()
    monkeypatch.chdir("flowers")
    before = Path().stat().st_ino
    init(Path())
    assert (here / "flowers").stat().st_ino == before
    assert Path("params.yaml").exists()
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "init: next: dvc add data/raw/pictures && headstart repro"


def test_what_git_ignores_is_not_in_its_repository(here, photos, monkeypatch):
    git("init", "-q")
    (here / ".gitignore").write_text("/tried/\ndata/\n")
    init(Path("tried"), data=photos)
    assert (here / "tried/.git").is_dir()
    monkeypatch.setattr(making, "_track", track)
    reason = (
        "git ignores data/raw/meine Fotos ü.dvc, but DVC needs it to track the examples:"
        " change .gitignore"
    )
    assert refused(Path("project"), data=photos) == reason
    Path("there").mkdir()
    monkeypatch.chdir("there")
    Path(".gitignore").write_text("data/\r\n# caf\xe9", encoding="latin-1")
    assert refused(None, data=photos, here=True) == reason


def test_what_is_in_the_way_is_named_and_nothing_is_written(photos):
    where = photos.parent
    assert refused(where) == (
        f"{where} is not an empty folder: name a new one, or give --here to add the project's"
        " files to it"
    )
    (where / "params.yaml").write_text("")
    (where / "plugins").mkdir()
    (where / "plugins/README.md").write_text("")
    assert refused(where, here=True) == (
        f"{where} has params.yaml, plugins/README.md already: rename what is yours first, or"
        " name a new folder below it"
    )
    assert "--here needs a folder, but" in refused(where / "new", here=True)
    (where / "file").touch()
    assert refused(where / "file/new") == f"{where / 'file'} is not a folder: name another place"
    assert refused(where / "file/a/new") == f"{where / 'file'} is not a folder: name another place"
    assert "give --here for the current one" in refused(None)


def test_data_that_cannot_be_used_is_refused(photos):
    where = photos.parent
    project = Path("project")
    assert refused(project, data=Path("none")) == "--data none does not exist"
    (where / "empty/in/it").mkdir(parents=True)
    assert refused(project, data=Path("empty")) == "--data empty has no files"
    assert "neither a folder for each class nor a table labels.csv or labels.parquet" in refused(
        project, data=photos / "disc"
    )
    assert "contains the project: give" in refused(project, data=where)
    assert "is a file; for pictures give a folder; if the folder has" in refused(
        project, data=photos / "disc/1.png"
    )
    assert "is a file; for vectors give a folder or a table .parquet; if" in refused(
        project, "vector", data=photos / "disc/1.png"
    )
    os.mkfifo(photos / "disc" / "pipe")
    assert refused(project, data=photos).endswith("/pipe` is a named pipe")


def test_a_folder_without_permission_is_named(monkeypatch):
    where = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    monkeypatch.chdir(where)
    Path("closed").mkdir(0)
    where.chmod(0o555)
    try:
        if root:  # which may write everywhere
            os.seteuid(65534)
        nothing = f"nothing can be written to {where}: Permission denied"
        assert refused(Path("project")) == refused(Path("a/b")) == nothing
        assert refused(None, here=True) == nothing
        with pytest.raises(PermissionError, match="closed"):
            init(Path("project"), data=Path("closed"))
    finally:
        if root:
            os.seteuid(0)
        where.chmod(0o755)
        shutil.rmtree(where)


def test_what_is_not_installed_is_named_before_anything_is_written(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packages, "_found", lambda module: module != "tokenizers")
        patch.setattr(making.install, "_lacks", lambda name: name == "tokenizers")
        assert refused(Path("project"), "text").endswith("run `headstart install text --yes`")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingSetError, match="needs git, which is not installed"):
        init(Path("project"))


def test_after_an_error_on_the_way_nothing_is_there(here, photos, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    git("init", "-q")
    (here / ".gitignore").write_text("/notes\n")
    before = {path: path.is_file() and path.read_bytes() for path in here.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        with pytest.raises(OSError, match="No space"):
            init(Path("project"), data=photos)
    rename = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "rename", lambda a, b: full() if a.name == "prefect.yaml" else rename(a, b)
        )
        with pytest.raises(OSError, match="No space"):
            init(None, here=True)
    with monkeypatch.context() as patch:
        patch.setattr(making, "_track", full)
        with pytest.raises(OSError, match="No space"):
            init(None, data=photos, here=True)
    assert {path: path.is_file() and path.read_bytes() for path in here.rglob("*")} == before


@pytest.mark.parametrize(
    ("variable", "link", "zone"),
    [
        ("America/Lima", "", "America/Lima"),
        (":/usr/share/zoneinfo/Asia/Tokyo", "", "Asia/Tokyo"),
        ("CET-1CEST", "/usr/share/zoneinfo/Europe/Paris", "Europe/Paris"),
        ("", "/nowhere", "UTC"),
    ],
)
def test_the_time_zone_is_this_machines(variable, link, zone, monkeypatch):
    monkeypatch.setenv("TZ", variable)
    monkeypatch.setattr(making.os.path, "realpath", lambda path: link)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert making.time_zone() == zone
