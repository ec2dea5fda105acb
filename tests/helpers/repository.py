"""A copy of the whole project, in which `dvc repro` runs."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import jsonschema

from flows import why
from tests.conftest import ROOT, Parameters

SCHEMA = json.loads((ROOT / "docs" / "why.schema.json").read_text())


def copy(file: Path, to: Path) -> None:
    """Copy a file with its time, by which Python knows that what it compiled is of this code."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, to)


class Repository(Parameters):
    """A copy of the project with git and DVC.

    Its processes take its own code, and the store and programs that the environment names.
    """

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        shutil.copytree(template, folder)
        files = self.run("git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard")
        code = ("corrections/", "map/", "pipeline/", "plugins/", "flows/", "headstart/")
        wanted = (*code, "data/", ".dvc/plots/", ".dvcignore", "params.yaml", "dvc.yaml")
        for name in files.splitlines():
            if name.startswith(wanted):
                copy(ROOT / name, folder / name)
                compiled = Path(cache_from_source(str(ROOT / name)))
                if name.endswith(".py") and compiled.exists():
                    copy(compiled, Path(cache_from_source(str(folder / name))))

    @property
    def environment(self) -> dict[str, str]:
        """That of its processes."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PYTHONPATH": str(self.folder), "PATH": path}

    def run(self, *command: str) -> str:
        done = self.attempt(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def attempt(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command that may fail."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def headstart(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "headstart", *arguments)

    def repro(self, *arguments: str) -> list[str]:
        """Run `headstart repro`; the names of the stages that ran."""
        return re.findall(r"Running stage '([\w@]+)'", self.headstart("repro", *arguments))

    def why(self) -> list[str]:
        """What `headstart why` prints, without starting it; its JSON follows the schema."""
        with contextlib.chdir(self.folder):
            answer = why.why()
            jsonschema.validate(json.loads(why.in_json(answer)), SCHEMA)
            return why.in_words(answer)

    def edit(self, name: str, before: str, after: str) -> None:
        file = self.folder / name
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after, 1))

    def outputs(self) -> dict[str, bytes]:
        """The bytes of every file that the stages wrote."""
        folders = ("bundle", "data/features", "data/pictures", "models", "reports")
        files = [f for name in folders for f in (self.folder / name).rglob("*") if f.is_file()]
        files += (self.folder / "data").glob("*.*")
        files = [f for f in files if f.name != ".gitignore"]  # DVC's
        return {str(f.relative_to(self.folder)): f.read_bytes() for f in sorted(files)}
