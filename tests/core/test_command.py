"""A mistake ends every command with one line and its kind's exit code; `--debug` shows more."""

import os
import re
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


def kinds(of=HeadstartError):
    return [of, *(kind for below in of.__subclasses__() for kind in kinds(below))]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


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
    **{stage: ("-m", f"pipeline.{stage}") for stage in ("ingest", "bundle")},
    "why": ("-m", "headstart", "why"),
    "predict": ("-m", "headstart", "predict", "bundle", "params.yaml"),
    "serve": ("-m", "headstart", "serve", "bundle"),
    **{door: ("-m", "headstart", door) for door in ("flow", "schedule", "repro")},
    **{module: ("-m", f"flows.{module}") for module in ("dashboard", "watch")},
}

OF_PARAMETERS = ("ingest", "bundle", "why", "predict")


@pytest.mark.parametrize("name", COMMANDS)
def test_outside_of_a_project(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*COMMANDS[name])
    assert_one_line(done, done.returncode, f"^{name}: error: ")
    of_bundle = name in ("predict", "serve")
    assert done.returncode == (3 if of_bundle else 2 if name in OF_PARAMETERS else 9)


@pytest.mark.parametrize("name", ["ingest", "bundle", "why"])
def test_broken_parameters(name, project):
    Path("params.yaml").write_text("ingest: [")
    assert_one_line(run(*COMMANDS[name]), 2, f"^{name}: error: params.yaml is not readable YAML")


@pytest.mark.parametrize(("name", "needs"), [("predict", "bundle"), ("serve", "bundle")])
def test_a_missing_bundle(name, needs, project):
    assert_one_line(run(*COMMANDS[name]), 3, f"^{name}: error: {needs}/bundle.json cannot be read")


@pytest.mark.parametrize("arguments", [("--help",), ("--debgu",), ("--debug", "data/raw/mine")])
def test_an_argument_of_a_stage_is_refused_before_any_work(arguments, project):
    manifest = Path("data/manifest.parquet")
    manifest.write_text("of the last run")
    done = run("-m", "pipeline.ingest", *arguments)
    assert_one_line(done, 2, f"^ingest: error: '{arguments[-1]}' is not understood")
    assert manifest.read_text() == "of the last run"


def test_a_project_without_dvc_and_one_whose_graph_is_broken(project, dvc_template):
    assert_one_line(run(*COMMANDS["why"]), 9, "^why: error: DVC: ")
    shutil.copytree(dvc_template, ".", dirs_exist_ok=True)
    Path("dvc.yaml").write_text("stages: 3")
    assert_one_line(run(*COMMANDS["why"]), 9, r"^why: error: DVC: '\./dvc\.yaml' validation failed")


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
        assert_one_line(run(*COMMANDS["serve"], "--port", port), 2, f"^serve: error: .*port {port}")


def test_debug_shows_where_it_happened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("-m", "headstart", "predict", "bundle", "nothing.png")
    for done in (
        run("-m", "pipeline.ingest", "--debug"),
        run("-m", "pipeline.ingest", HEADSTART_DEBUG="1"),
        run(*asked, "--debug"),
        run(*asked[:2], "--debug", *asked[2:]),
        run("-m", "flows.run", "--debug"),
    ):
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
