"""`headstart --version`, `completion` and `doctor`; `tests/serving` has `predict` and `serve`."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.repo import Repo

import headstart
from headstart import cli, doctor
from pipeline.backbones import engines
from pipeline.backbones.engines import processor
from pipeline.core import errors, lock, packages
from pipeline.store.database import features_file
from pipeline.store.vectors import FeatureStore
from tests.conftest import ROOT


def run(*arguments, capsys):
    """Exit code, stdout and stderr of the command, in this process."""
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["headstart", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_version(capsys):
    assert run("--version", capsys=capsys) == (0, f"headstart {headstart.__version__}\n", "")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # by other tests
def test_a_stage_runs_with_its_own_errors(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("run", "augment", capsys=capsys)
    assert code == headstart.ParamsError.exit_code
    assert error.startswith("augment: error: params.yaml")
    code, _, error = run("run", "augment", "--force", capsys=capsys)
    assert "'--force' is not understood" in error
    code, _, error = run("run", "tables", capsys=capsys)
    assert code == 2
    assert "invalid choice: 'tables' (choose from" in error


@pytest.mark.parametrize("subcommand", ["flow", "schedule", "repro", "why", "check"])
def test_a_project_of_other_code_is_refused_before_any_work(
    subcommand, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path("dvc.yaml").write_text("stages: {ingest: {cmd: headstart run ingest}}")
    here = lock.installed()
    replace(here, stages={**here.stages, "train": "0" * 12}).write()
    code, _, error = run(subcommand, capsys=capsys)
    assert (code, error.count("\n")) == (errors.LockError.exit_code, 1)
    assert error.startswith(f"{subcommand}: error: ")
    assert "headstart upgrade" in error


def test_the_last_line_of_repro_is_the_report(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    graph = "stages: {report: {cmd: 'mkdir -p reports && date > reports/report.html'}}"
    Path("dvc.yaml").write_text(graph)
    for arguments in ([], ["--force"]):
        code, said, _ = run("repro", *arguments, capsys=capsys)
        assert (code, said.splitlines()[-1]) == (0, f"Report: {tmp_path}/reports/report.html")
    assert "Report:" not in run("repro", "report", capsys=capsys)[1]
    Path("dvc.yaml").write_text(graph.replace("date", "false"))
    code, said, _ = run("repro", capsys=capsys)
    assert code > 0
    assert "Report:" not in said


ON_WINDOWS = """
import os, sys

sys.platform = "win32"
sys.modules["fcntl"] = None
del os.O_NONBLOCK, os.O_CLOEXEC, os.sysconf, os.pread
"""


@pytest.mark.parametrize("asked", [["predict", "bundle", "1.png"], []])
def test_on_windows_the_command_says_in_a_line_where_it_runs(asked):
    done = on_windows(f"sys.argv = {['headstart', *asked]}; import headstart.cli as c; c.main()")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "headstart: error: Headstart runs only on Linux and macOS, because it uses Unix file locks;"
        " on Windows, install it in WSL\n"
    )


def test_on_windows_the_library_raises_its_own_error():
    done = on_windows(
        "import headstart\n"
        "for call in (headstart.load, lambda _: headstart.Embedder):\n"
        "    try: call('bundle')\n"
        "    except headstart.HeadstartError as error: print(error)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:38] for line in lines] == ["Headstart runs only on Linux and macOS"] * 2


def on_windows(code):
    """As far as Windows can be had here: its name, and what Python does not have there."""
    return subprocess.run(
        [sys.executable, "-c", ON_WINDOWS + code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_the_completion_of_each_shell_knows_the_subcommands(shell, capsys):
    code, script, _ = run("completion", shell, capsys=capsys)
    assert code == 0
    for word in ("predict", "serve", "doctor", "completion", "--heat-maps", "site", "federate"):
        assert word in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes(capsys):
    _, script, _ = run("completion", "bash", capsys=capsys)
    script += "\nCOMP_WORDS=(headstart pre); COMP_CWORD=1; _shtab_headstart; echo $COMPREPLY"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "predict"


def diagnosis(capsys):
    """The lines of `headstart doctor`, by what they are about."""
    code, out, err = run("doctor", capsys=capsys)
    assert (code, err) == (0, "")
    return {line[:13].strip(): line[14:] for line in out.splitlines()}


def test_the_doctor_tells_what_is_here_and_begins_no_store(tmp_path, capsys, monkeypatch):
    store = tmp_path / "store"
    monkeypatch.setenv("HEADSTART_STORE", str(store))
    monkeypatch.setenv("HEADSTART_STORE_LIMIT", "none")
    lines = diagnosis(capsys)
    assert lines["headstart"].startswith(f"{headstart.__version__}, a clone in ")
    for name in ("base", "[pipeline]"):
        assert lines[name] == "installed"
    assert lines["store"] == f"{store}, 0.0 MB, no limit; begun by the first run"
    assert lines["disk"].endswith(f" GB free in {tmp_path}")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("HEADSTART_STORE_LIMIT", "5GB")
    with FeatureStore(store, None):
        assert diagnosis(capsys)["store"].endswith(" MB, limit 5 GB")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("damaged", "damaged: the next run sets it aside and begins a new one"),
        (
            "below a file",
            "cannot be written to: set store.folder in params.yaml (or HEADSTART_STORE)",
        ),
        ("relative", "cannot be read: HEADSTART_STORE is 'relative'; should be an absolute path"),
        ("limit", "cannot be read: HEADSTART_STORE_LIMIT is 'much'; should be a size such as"),
    ],
)
def test_a_store_that_is_out_of_order_is_a_line(name, said, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "store"
    folder.mkdir()
    features_file(folder).write_bytes(b"no database at all")
    (tmp_path / "a file").touch()
    folders = {"below a file": str(tmp_path / "a file" / "store"), "relative": "relative"}
    monkeypatch.setenv("HEADSTART_STORE", folders.get(name, str(folder)))
    if name == "limit":
        monkeypatch.setenv("HEADSTART_STORE_LIMIT", "much")
    assert said in diagnosis(capsys)["store"]
    assert features_file(folder).read_bytes() == b"no database at all"


def test_a_home_that_cannot_be_written_is_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HEADSTART_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert "cannot be written to: set store.folder" in diagnosis(capsys)["store"]


def test_what_is_missing_comes_with_what_installs_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path))
    for name in ("torch", "openvino"):
        monkeypatch.setitem(packages.SETS, name, (f"no_{name}",))
    assert doctor.DRIVERS == engines.DRIVERS
    monkeypatch.setattr(doctor, "DRIVERS", (tmp_path,))
    lines = diagnosis(capsys)
    install = "run `make setup EXTRAS=torch`"
    assert lines["[torch]"] == f"not installed: {install}"
    assert lines["gpu"] == f"an NVIDIA driver, but no PyTorch to use it: {install}"
    assert lines["auto engine"] == "onnxruntime; bfloat16 needs OpenVINO or a GPU"
    monkeypatch.setitem(packages.SETS, "base", ("numpy", "no_onnxruntime"))
    assert diagnosis(capsys)["base"].startswith("not installed (without no_onnxruntime): run `make")
    monkeypatch.setattr(doctor, "PREDICT", {"no_onnxruntime"})
    code, _, err = run("doctor", capsys=capsys)
    assert code == headstart.MissingSetError.exit_code
    assert err.startswith("doctor: error: headstart predict needs the base packages (no_onn")


def test_the_doctor_names_bfloat16_until_it_is_chosen(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path))
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setitem(packages.SETS, "openvino", ("no_openvino",))
    monkeypatch.chdir(tmp_path)
    assert "bfloat16" not in diagnosis(capsys)
    Path("cpuinfo").write_text("flags : avx512_bf16\n")
    assert (
        diagnosis(capsys)["bfloat16"]
        == f"{processor.BFLOAT16}, and run `headstart install openvino`"
    )
    Path("params.yaml").write_text("extract: {precision: bfloat16}")
    assert "bfloat16" not in diagnosis(capsys)


def test_why_without_the_pipelines_packages_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(packages.SETS, "pipeline", ("no_dvc",))
    code, _, err = run("why", capsys=capsys)
    assert code == headstart.MissingSetError.exit_code
    assert err.startswith("why: error: why needs the pipeline's packages, which are not installed")


@pytest.mark.parametrize("subcommand", sorted(cli.HELP.keys() - {"predict"}))
def test_without_the_pipelines_packages_a_subcommand_is_one_line(subcommand, capsys, monkeypatch):
    module = cli._module

    def only_predict(name):
        if name != "predict":
            raise ModuleNotFoundError(name)
        return module(name)

    monkeypatch.setitem(packages.SETS, "pipeline", ("no_dvc",))
    monkeypatch.setattr(cli, "_module", only_predict)
    for option in ("--help", "--debug"):
        code, _, err = run(subcommand, option, capsys=capsys)
        assert (code, err.count("\n")) == (headstart.MissingSetError.exit_code, 1)
        assert err.startswith(f"{subcommand}: error: {subcommand} needs the pipeline's packages")
    code, _, err = run("predict", "no bundle", subcommand, capsys=capsys)
    assert (code, err.count("\n")) == (headstart.DataError.exit_code, 1)
    code, script, _ = run("completion", "bash", capsys=capsys)
    assert (code, "--heat-maps" in script) == (0, True)


def test_ctrl_c_while_modules_are_imported_is_one_line(monkeypatch, capsys):
    def import_module(*_):
        raise KeyboardInterrupt

    ended: list[int] = []
    monkeypatch.setattr(cli, "import_module", import_module)
    monkeypatch.setattr(sys, "argv", ["headstart", "map"])
    monkeypatch.setattr(os, "kill", lambda _, number: ended.append(number))
    try:
        cli.main()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert ended == [signal.SIGINT]
    assert capsys.readouterr().err == "headstart: interrupted\n"


def test_the_help_of_each_command_says_what_the_command_does() -> None:
    (subcommands,) = (one for one in cli._parser()._actions if isinstance(one.choices, dict))
    assert {name for name, of in subcommands.choices.items() if not of.description} == set()
