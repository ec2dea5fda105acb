"""The wheel's build: what is `pipeline` or `flows` in a clone is in `headstart` there.

So a wheel takes no name but `headstart`, and the others stay free for anybody's own modules.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

IMPORTS = re.compile(r"^( *)(from|import) (pipeline|flows)\b", flags=re.MULTILINE)


class Renaming(BuildHookInterface):  # type: ignore[type-arg]
    """Lays the modules of `headstart/` into the wheel with their imports renamed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write them anew; an installation of the clone itself takes them as they are."""
        if version == "editable":
            return
        self.renamed = tempfile.TemporaryDirectory()
        for file in Path(self.root, "headstart").glob("*.py"):
            written = Path(self.renamed.name, file.name)
            text = file.read_text(encoding="utf-8")
            written.write_text(IMPORTS.sub(r"\1\2 headstart.\3", text), encoding="utf-8")
            build_data["force_include"][str(written)] = f"headstart/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete what was written for the build."""
        if version != "editable":
            self.renamed.cleanup()
