"""docs/federated.md, as a newcomer follows it: every command is run and says what the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.conftest import ROOT

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)


def steps() -> list[tuple[str, list[str]]]:
    """The commands of the section, each with the lines that the page shows of its output."""
    text = (ROOT / "docs" / "federated.md").read_text()
    (section,) = re.findall(r"^## In five minutes\n(.*?)^## ", text, re.M | re.S)
    found: list[tuple[str, list[str]]] = []
    for line in "".join(BLOCK.findall(section)).splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_runs_as_it_is_written(tmp_path: Path, exported: Path, lite0: Path) -> None:
    clone, store = tmp_path / "clone", tmp_path / "store"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    store.mkdir()
    (store / "backbones").symlink_to(exported)
    (tmp_path / "bin").mkdir()
    # The command of the clone, as `make setup` installs it.
    command = tmp_path / "bin" / "headstart"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m headstart "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}"
    environment = os.environ | {"HEADSTART_STORE": str(store), "PATH": path + os.environ["PATH"]}
    environment.pop("PYTHONPATH", None)
    folder, heads = clone, []

    def run(line: str) -> "subprocess.CompletedProcess[str]":
        shell = ["bash", "-c", line]
        return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True)

    for command_line, shown in steps():
        if command_line.startswith("cd "):
            folder = (folder / command_line.removeprefix("cd ")).resolve()
            continue
        done = run(command_line)
        assert done.returncode == 0, command_line + done.stdout + done.stderr
        said = done.stdout.splitlines()
        for line in shown:
            assert line in said, command_line + done.stdout
        if command_line.startswith("mv "):  # the features are of before
            early = run("headstart site lima")
            assert early.returncode == 9
            assert early.stderr.startswith("site: error: ingest is out of date (")
            assert early.stderr.count("\n") == 1
        if command_line.startswith("headstart federate"):
            heads.append(load_file(folder / "joined/bundle/head.safetensors")["weight"])
            told = json.loads((folder / "joined/sites.json").read_text())
            assert [one["site"] for one in told["sites"]] == ["lima", "oslo"]
            assert told["left_out"] == []
    first, relabelled, from_remote = heads
    assert (first != relabelled).any()
    assert (relabelled == from_remote).all()
