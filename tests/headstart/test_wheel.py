"""The wheel, built and unpacked: it takes no name but `headstart`, predicts, and has types."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import venv
import zipfile
from contextlib import closing
from pathlib import Path

import httpx
import pandas as pd
import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import headstart
from headstart import init
from tests.conftest import ROOT

USERS = """
import sys
from pathlib import Path

import headstart

model = headstart.load(sys.argv[1])
for prediction in model.predict(sorted(Path(sys.argv[2]).glob("*.png"))):
    label: str = prediction.label.upper()
    print(label, max(prediction.probabilities.values()), prediction.path)
size: tuple[int, ...] = model.embed(sys.argv[2]).shape
near: list[str] = [one.label for one in model.neighbours(sys.argv[2], k=2)]
Path("why.png").write_bytes(model.explain(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution, as pip does it where it finds no wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    (source,) = SdistBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    root = Path(source.removesuffix(".tar.gz"))
    (file,) = WheelBuilder(str(root)).build(directory=str(folder), versions=["standard"])
    return Path(file)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel, unpacked as pip does it."""
    site = tmp_path_factory.mktemp("site")
    shutil.unpack_archive(wheel, site, "zip")
    return site


@pytest.fixture
def elsewhere(installed, tmp_path, monkeypatch):
    """A folder with modules of its own; what is started there finds the wheel."""
    for module in ("flows.py", "pipeline.py"):
        (tmp_path / module).write_text("MINE = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(installed)]))
    return tmp_path


def python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_all_that_is_in_the_wheel(wheel):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert len(set(names)) == len(names)
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"headstart", f"headstart-{headstart.__version__}.dist-info"}
    rooms = ("flows", "headstart", "pipeline")
    files = [file for room in rooms for file in (ROOT / room).rglob("*.*")]
    tracked = {f.relative_to(ROOT).as_posix() for f in files if "__pycache__" not in f.parts}
    wanted = {re.sub("^(flows|pipeline)/", r"headstart/\1/", name) for name in tracked}
    project = "headstart/project/"
    mine = {name for name in names if name.startswith("headstart/")}
    assert {name for name in mine if not name.startswith(project)} == wanted
    for name in mine - wanted:  # what a project is made from is the clone's
        assert archive.read(name) == (ROOT / name.removeprefix(project)).read_bytes()
    assert {project + name for name in ("dvc.yaml", ".dvcignore", ".dvc/plots/rank.json")} < mine
    for name in wanted:
        assert (
            re.findall(rb"^ *(?:from|import) (?:pipeline|flows)\b", archive.read(name), re.M) == []
        )
    assert {"headstart/py.typed", "headstart/pipeline/serving/server.html"} <= wanted


@pytest.mark.slow
def test_beside_a_module_named_pipeline_it_predicts(elsewhere, bundled):
    row = pd.read_csv(bundled / "reports/predictions.csv").iloc[0]
    done = python("-m", "headstart", "predict", bundled / "bundle", bundled / row["path"])
    assert done.returncode == 0, done.stderr
    assert row["predicted"] in done.stdout.splitlines()[1]
    script = (
        "import sys, pipeline, headstart\n"
        "assert pipeline.MINE\n"
        "model = headstart.load(sys.argv[1])\n"
        "from headstart import cli, doctor, embedder, examples\n"
        "print(headstart.__file__, model.predict(sys.argv[2])[0].label)\n"
        "print([name for name in sys.modules if name.startswith('pipeline.')])"
    )
    done = python("-c", script, bundled / "bundle", bundled / row["path"])
    assert done.returncode == 0, done.stderr
    where, none = done.stdout.splitlines()
    assert where.endswith(f"site0/headstart/__init__.py {row['predicted']}")
    assert none == "[]"


def test_a_stage_runs_from_the_wheel(elsewhere):
    """So far that it finds what is wrong: there are no parameters."""
    said = python("-m", "headstart", "run", "augment", "--debug").stderr
    assert "headstart/pipeline/augment.py" in said
    assert said.splitlines()[-1].startswith("headstart.pipeline.core.errors.ParamsError: ")


def test_a_project_that_the_wheel_makes_is_a_clones(elsewhere):
    assert python("-m", "headstart", "init", "its/project").returncode == 0
    init.run(elsewhere / "project")
    made = [elsewhere / folder for folder in ("project", "its/project")]
    names = [file.relative_to(made[0]) for file in made[0].rglob("*") if file.is_file()]
    names = [name for name in names if name.parts[0] != ".git"]
    assert len(names) > 15
    for name in names:
        assert (made[1] / name).read_bytes() == (made[0] / name).read_bytes()


def test_a_plugin_imports_the_same_names_as_in_a_clone(elsewhere):
    (elsewhere / "plugins").mkdir()
    plugin = elsewhere / "plugins" / "mine.py"
    plugin.write_text("from headstart.plugins import OPSET\n")
    script = (
        "from headstart.pipeline.core import command, plugins\n"
        "def stage(): print(plugins.load('python:mine.OPSET', 'backbone'))\n"
        "command.run(stage)"
    )
    done = python("-c", script)
    assert done.stdout == "20\n", done.stderr
    plugin.write_text("from pipeline.kinds import OPSET\n")
    (line,) = python("-c", script).stderr.splitlines()
    assert line.startswith("stage: error: backbone: plugins/mine.py, line 1: ModuleNotFoundError")
    assert line.endswith("write `from headstart.plugins import …`, which has the names for plugins")


def test_what_is_missing_comes_from_the_locks_of_the_wheel(elsewhere):
    done = python("-m", "headstart", "install", "all")
    assert done.stdout == "install: every package of all is installed\n", done.stderr


@pytest.mark.slow
def test_beside_a_module_named_flows_the_flow_is_found(elsewhere):
    script = (
        "import flows, headstart.flow\n"
        "from headstart import shipped\n"
        "from headstart.flows import run, serve\n"
        "from prefect.flows import load_flow_from_entrypoint\n"
        "assert flows.MINE\n"
        "declared = shipped.folder() / 'prefect.yaml'\n"
        "print(*[one.entrypoint for one in serve.deployments(declared)])\n"
        "one = load_flow_from_entrypoint(serve.yaml.safe_load(declared.read_text())"
        "['deployments'][0]['entrypoint'], use_placeholder_flow=False)\n"
        "assert one is headstart.flow.headstart"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == 2 * ["headstart.flows.headstart.headstart"]
    done = python("-m", "headstart", "why")
    assert done.returncode == headstart.ParamsError.exit_code
    assert done.stderr.startswith("why: error: params.yaml does not exist")


@pytest.mark.slow
def test_mypy_strict_passes_on_a_users_script(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    venv.create("env", with_pip=False, symlinks=True)
    site = next(Path("env/lib").glob("python*/site-packages"))
    for package in (installed / "headstart", Path(pd.__file__).parents[1] / "numpy"):
        (site / package.name).symlink_to(package)
    Path("users.py").write_text(USERS)
    mypy = ("-m", "mypy", "--strict", "--python-executable", "env/bin/python", "users.py")
    done = python(*mypy)
    assert done.returncode == 0, done.stdout
    wrong = USERS.replace(".label.upper()", ".label + 1")
    Path("users.py").write_text(wrong + "\nheadstart.lod('bundle')\nmodel.predict(3)\n")
    said = python(*mypy).stdout
    for line in ("Unsupported operand types for +", 'Module has no attribute "lod"', "arg-type"):
        assert line in said


def test_of_an_editable_installation_all_code_is_the_clones(tmp_path):
    (file,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["editable"])
    opened = zipfile.ZipFile(file)
    outside = [name for name in opened.namelist() if ".dist-info/" not in name]
    assert [opened.read(name).decode() for name in outside] == [str(ROOT)]


EMBEDS = """
import sys
import headstart
print(headstart.Embedder("efficientnet_lite0").transform(sys.argv[1:]).shape)
print([name for name in ("torch", "pandas", "sklearn", "dvc", "prefect") if name in sys.modules])
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("uv"), reason="pip would take long: pip install uv")
def test_three_libraries_answer_then_two_more_and_the_base_set_predicts_serves_and_embeds(
    wheel, bundled, tmp_path, monkeypatch
):
    """The script of docs/bundle.md, the command with two small libraries more, then the wheel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    venv.create("env")
    row = pd.read_csv(bundled / "reports/predictions.csv").iloc[0]
    bundle, picture = str(bundled / "bundle"), str(bundled / row["path"])
    locked = re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements/base.lock").read_text(), re.M)

    def run(*command, program="env/bin/python", **environment):
        done = subprocess.run(
            [program, *command], env=os.environ | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(*what):
        run("pip", "install", "--quiet", "--python", "env", *what, program="uv")

    def pinned(*names):
        return [f"{name}=={version}" for name, version in locked if name in names]

    install(*pinned("numpy", "onnxruntime", "pillow"))
    site = next(Path("env/lib").glob("python*/site-packages"))
    names = {path.name for path in site.iterdir()}
    assert not names & {"torch", "timm", "onnx", "pandas"}
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    assert size < 230e6
    text = (ROOT / "docs" / "bundle.md").read_text()
    Path("ask.py").write_text(text.split("```python\n")[1].split("```")[0])
    found, name = run("ask.py", bundle, picture).split()
    assert name == row["predicted"]
    assert float(found) == pytest.approx(row["probability"], abs=2e-3)

    install(*pinned("safetensors", "threadpoolctl"))
    more = ("--jsonl", "said.jsonl", "--neighbours", "1", "--heat-maps", ".")
    module = ("-m", "pipeline.serving.predict")
    run(*module, bundle, picture, *more, PYTHONPATH=str(ROOT))
    said = json.loads(Path("said.jsonl").read_text())
    assert said["class"] == row["predicted"]
    assert said["probability"] == pytest.approx(row["probability"], abs=1e-5)

    install("--no-deps", "--require-hashes", "--requirement", ROOT / "requirements" / "base.lock")
    install("--no-deps", wheel)
    assert row["predicted"] in run("env/bin/headstart", "predict", bundle, picture).splitlines()[1]
    assert run("-c", EMBEDS, picture, picture) == "(2, 1280)\n[]\n"

    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    serve = ["env/bin/headstart", "serve", bundle, "--port", str(port)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert "answering" in server.stdout.readline()
            asked = httpx.post(
                f"http://127.0.0.1:{port}/predict",
                content=Path(picture).read_bytes(),
                headers={"Content-Type": "image/png"},
            )
            assert row["predicted"] in asked.raise_for_status().text
        finally:
            server.terminate()
