"""The builds: what is `pipeline` or `flows` in a clone is in `headstart` in the wheel.

So a wheel takes no name but `headstart`, and the others stay free for anybody's own modules. The
files that a project is made from are in `headstart/project/`.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

IMPORTS = re.compile(r"^( *from )(pipeline|flows)\b", flags=re.MULTILINE)
PROJECT = (
    ".dvc/config",
    ".dvc/plots/*.json",
    ".dvcignore",
    "corrections/README.md",
    "data/weights/.gitignore",
    "dvc.yaml",
    "examples/audio/params.yaml",
    "examples/text/params.yaml",
    "examples/vector/params.yaml",
    "map/README.md",
    "params.yaml",
    "plugins/README.md",
    "plugins/requirements.txt",
    "prefect.yaml",
    "requirements/*.lock",
)


class Layout(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the files of a project to what is built, and to a wheel the renamed modules."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files; an installation of the clone itself takes them from there."""
        if version == "editable":
            return
        root, included = Path(self.root), build_data["force_include"]
        in_wheel = self.target_name == "wheel"
        for file in (file for pattern in PROJECT for file in root.glob(pattern)):
            place = file.relative_to(root)
            included[str(file)] = str("headstart/project" / place if in_wheel else place)
        if not in_wheel:
            return
        self.renamed = tempfile.TemporaryDirectory()
        modules = ("headstart/*.py", "flows/**/*.py", "flows/*.json")
        for file in (file for pattern in modules for file in root.glob(pattern)):
            place = file.relative_to(root)
            written = self.renamed.name / place
            written.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text(encoding="utf-8")
            written.write_text(IMPORTS.sub(r"\1headstart.\2", text), encoding="utf-8")
            included[str(written)] = str(
                place if place.parts[0] == "headstart" else "headstart" / place
            )

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete what was written for the build."""
        if hasattr(self, "renamed"):
            self.renamed.cleanup()
