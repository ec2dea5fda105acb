"""A mistake ends every command with one line and its kind's exit code; `--debug` shows more."""

import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core import command, errors, terminal
from pipeline.core.errors import HeadstartError
from tests.conftest import ROOT

# Modules that other tests have imported, and that run as commands here.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


def kinds(of=HeadstartError):
    return [of, *(kind for below in of.__subclasses__() for kind in kinds(below))]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


@pytest.fixture
def here(capsys, monkeypatch):
    """What `python -m` would do, in this process."""

    def run_here(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        code = 0
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, said.out, said.err)

    return run_here


def assert_one_line(done, code, said):
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(said, done.stderr), done.stderr


def test_the_tree_is_drawn_as_it_is():
    drawn = re.findall(r"^    [ │├└─]*(\w+Error)(?: \((\d+)\))?(?: |$)", errors.__doc__, re.M)
    assert [name for name, _ in drawn] == [kind.__name__ for kind in kinds()]
    codes = {name: int(code) for name, code in drawn if code}
    assert codes == {kind.__name__: kind.exit_code for kind in kinds() if "exit_code" in vars(kind)}
    assert len(set(codes.values())) == len(codes)


@pytest.mark.parametrize("kind", kinds())
def test_each_kind_is_one_line_and_its_exit_code(kind, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stage"])  # pytest's own are none of a stage's

    def stage():
        raise kind("a.png is no picture; remove it")

    with pytest.raises(SystemExit) as ended:
        command.run(stage)
    assert ended.value.code == kind.exit_code
    assert capsys.readouterr().err == "stage: error: a.png is no picture; remove it\n"


COMMANDS = {
    **{stage: (f"pipeline.{stage}",) for stage in ("ingest", "bundle")},
    "why": ("headstart", "why"),
    "predict": ("headstart", "predict", "bundle", "params.yaml"),
    "serve": ("headstart", "serve", "bundle"),
    **{door: ("headstart", door) for door in ("flow", "schedule", "repro")},
    **{module: (f"flows.{module}",) for module in ("dashboard", "watch")},
}

OF_PARAMETERS = ("ingest", "bundle", "why", "predict")


@pytest.mark.parametrize("name", COMMANDS)
def test_outside_of_a_project(name, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = here(*COMMANDS[name])
    assert_one_line(done, done.returncode, f"^{name}: error: ")
    of_bundle = name in ("predict", "serve")
    assert done.returncode == (3 if of_bundle else 2 if name in OF_PARAMETERS else 9)


@pytest.mark.parametrize("name", ["ingest", "bundle", "why"])
def test_broken_parameters(name, here, project):
    Path("params.yaml").write_text("ingest: [")
    assert_one_line(here(*COMMANDS[name]), 2, f"^{name}: error: params.yaml is not readable YAML")


@pytest.mark.parametrize("name", ["predict", "serve"])
def test_a_missing_bundle(name, here, project):
    said = f"^{name}: error: bundle/bundle.json cannot be read"
    assert_one_line(here(*COMMANDS[name]), 3, said)


@pytest.mark.parametrize("arguments", [("--help",), ("--debgu",), ("--debug", "data/raw/mine")])
def test_an_argument_of_a_stage_is_refused_before_any_work(arguments, here, project):
    manifest = Path("data/manifest.parquet")
    manifest.write_text("of the last run")
    done = here("pipeline.ingest", *arguments)
    assert_one_line(done, 2, f"^ingest: error: '{arguments[-1]}' is not understood")
    assert manifest.read_text() == "of the last run"


def test_a_project_without_dvc_and_one_whose_graph_is_broken(here, project, dvc_template):
    assert_one_line(here(*COMMANDS["why"]), 9, "^why: error: DVC: ")
    shutil.copytree(dvc_template, ".", dirs_exist_ok=True)
    Path("dvc.yaml").write_text("stages: 3")
    said = r"^why: error: DVC: '\./dvc\.yaml' validation failed"
    assert_one_line(here(*COMMANDS["why"]), 9, said)


def test_a_store_that_is_none(tmp_path):
    (tmp_path / "a file").touch()
    done = run("-m", "pipeline.store", HEADSTART_STORE=str(tmp_path / "a file"))
    assert_one_line(done, 5, "^store: error: ")


def test_a_port_that_is_taken(bundled, monkeypatch):
    monkeypatch.chdir(bundled)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_one_line(
            run("-m", *COMMANDS["serve"], "--port", port), 2, f"^serve: error: .*port {port}"
        )


def test_debug_shows_where_it_happened(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("headstart", "predict", "bundle", "nothing.png")
    for one in (
        ("pipeline.ingest", "--debug"),
        (*asked, "--debug"),
        (*asked[:1], "--debug", *asked[1:]),
        ("flows.run", "--debug"),
    ):
        with pytest.raises(HeadstartError):
            here(*one)
    done = run("-m", "pipeline.ingest", HEADSTART_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "Error: " in done.stderr.splitlines()[-1]


def test_what_was_not_foreseen_is_one_line_too():
    script = (
        "from pipeline.core import command\ndef stage(): return {}['a\\nkey']\ncommand.run(stage)"
    )
    assert_one_line(run("-c", script), 1, r"^stage: error: KeyError: .*; this is a bug")
    assert "Traceback" in run("-c", script, HEADSTART_DEBUG="1").stderr


def test_ctrl_c_is_one_line_and_ends_by_the_signal(tmp_path):
    script = (
        "import signal, time\nfrom pipeline.core import command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def stage():\n    print('at work', flush=True)\n    time.sleep(60)\ncommand.run(stage)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "at work\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert said == "stage: interrupted\n"
    assert process.returncode == -signal.SIGINT


def test_a_reader_that_has_seen_enough_is_no_error():
    script = "from pipeline.core import command; command.run(lambda: print('line\\n' * 100_000))"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{script}" | head -n 1; echo ${{PIPESTATUS[0]}}'],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout, done.stderr) == ("line\n141\n", "")


# A title for the terminal, a colour, a return to the line's start, and a change of direction.
NAME = "a\x1b]0;owned\x07\x1b[31m\rb\x9b2J\u202egnp.exe"
SPELT = r"a\x1b]0;owned\x07\x1b[31m\rb\x9b2J\u202egnp.exe"


def test_control_characters_of_names_are_spelt_out(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stage"])

    def stage():
        print(f"stage: warning: class {NAME!s}\n\tčaj 茶")
        raise errors.DataError(f"{NAME} is damaged")

    with pytest.raises(SystemExit):
        command.run(stage)
    said = capsys.readouterr()
    assert said.out == f"stage: warning: class {SPELT}\n\tčaj 茶\n"
    assert said.err == f"stage: error: {SPELT} is damaged\n"
    assert terminal.printable("a\tb\nc") == r"a\tb\nc"
