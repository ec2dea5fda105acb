"""`headstart review`: serve the report on loopback, and write the corrections that a person makes.

`loopback.py` says who may write them.
"""

import argparse
import getpass
import re
import subprocess
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette

from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import CORRECTIONS, MANIFEST, REPORT, SHEETS
from pipeline.pages.embed import REVIEWED, as_cell
from pipeline.sources.found import tidy
from pipeline.tables import corrections, targets
from pipeline.tables.corrections import COLUMNS, LABEL, Correction
from pipeline.tables.manifest import TARGET, read_manifest, task_in

from . import loopback

PORT = 8010
NAME = re.compile(r"\w[\w.-]{0,63}")
LONGEST = 2_000  # characters of a cell
GIVEN = ("digest", "field", "old", "new", "why")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run` to a parser."""
    parser.add_argument(
        "--name",
        help="Name of your file in corrections/, without .csv (default: user.name of git).",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"Port of the page (default: {PORT})."
    )


def run(name: str | None = None, port: int = PORT) -> None:
    """Serve the report until interrupted.

    Raises:
        DataError: there is no report, it names no examples, or there is no manifest.
        ParamsError: the name is not that of a file, or the port is not valid or in use.
    """
    name = name or own_name()
    if not NAME.fullmatch(name):
        raise ParamsError(f"--name is {name!r:.80}; it should be letters, digits, _, . or -")
    if not REPORT.exists():
        raise DataError(f"{REPORT} does not exist; run `headstart repro` first")
    if REVIEWED not in REPORT.read_text(encoding="utf-8"):
        raise DataError(
            f"{REPORT} names no examples: set report.examples to shown, and run `headstart repro`"
        )
    desk = Desk(name, set(read_manifest(MANIFEST)["digest"]), task_in(MANIFEST))
    key = loopback.new_key()
    listening = loopback.listening(port)
    at = loopback.address(listening, key)
    print(f"review: open {at} ; corrections go to {desk.file}; Ctrl-C ends it", flush=True)
    loopback.serve(application(desk, key), listening)
    with suppress(DataError):  # the file was damaged meanwhile, which ingest reports
        if rows := desk.rows():
            has = f"{len(rows)} correction{'s' * (len(rows) != 1)}"
            print(f"review: {desk.file} has {has}; next: headstart repro")


def own_name() -> str:
    """Return the name of git's user as that of a file, or else the name of the system's user."""
    asked = ["git", "config", "user.name"]
    with suppress(OSError):
        done = subprocess.run(asked, capture_output=True, check=False)  # noqa: S603
        given = done.stdout.decode(errors="replace").strip().lower()
        if name := re.sub(r"[^\w]+", "-", given).strip("-_"):
            return name[:64]
    return getpass.getuser()


class Desk:
    """Reads and writes the corrections of one person."""

    def __init__(self, name: str, digests: set[str], task: str) -> None:
        """Prepare for the file of `name`, and for examples with these digests."""
        self.name, self.file = name, CORRECTIONS / f"{name}.csv"
        self._digests, self._task = digests, task

    def rows(self) -> list[Correction]:
        """Return the person's corrections.

        Raises:
            DataError: the file is damaged.
        """
        return corrections.read(self.file) if self.file.exists() else []

    def put(self, given: dict[str, Any]) -> str:
        """Add a correction, or remove that of the same field if its `new` is None.

        Returns:
            a warning if another file contradicts it.

        Raises:
            DataError: it is not a valid correction, or the file is damaged, which stays as it is.
        """
        texts = {name: given.get(name) for name in GIVEN}
        removes = texts["new"] is None
        texts["new"] = texts["new"] or ""
        for name, text in texts.items():
            if not isinstance(text, str) or len(text) > LONGEST or not text.isprintable():
                raise DataError(f"{name} should be a text of at most {LONGEST} characters")
        digest, field, old, new, why = (str(texts[name]).strip() for name in GIVEN)
        one = Correction(digest, field, old, new, self.name, why)
        if one.digest not in self._digests and MANIFEST.exists():  # a run may have added it
            self._digests = set(read_manifest(MANIFEST)["digest"])
        if one.digest not in self._digests:
            raise DataError("no example has this digest: run `headstart repro`, and reload")
        rows = self.rows()
        same = [row for row in rows if (row.digest, row.field) == (one.digest, one.field)]
        rest = [row for row in rows if row not in same]
        if removes:
            corrections.write(self.file, rest)
            return ""
        if reason := corrections.why_not(one):
            raise DataError(reason)
        for row in same:  # the source's value stays the old one of a correction that was applied
            if row.old != one.old and one.old in (row.new, self._applied(row)):
                one = one._replace(old=row.old)
        CORRECTIONS.mkdir(exist_ok=True)
        corrections.write(self.file, [*rest, one])
        return self._contradicted(one)

    def _applied(self, row: Correction) -> str:
        """Return the new value as the page shows it after a run, in the form of the task."""
        read, text = targets.of_task(self._task).read, tidy(row.new)
        with suppress(ValueError):  # which ingest names
            if row.field == LABEL:
                return read(text, (), ())[0]
            if row.field.startswith(TARGET):
                _, (value,) = read("", (row.field.removeprefix(TARGET),), (text,))
                return as_cell(value)
        return text

    def _contradicted(self, one: Correction) -> str:
        for file in corrections.files_in(CORRECTIONS)[0]:
            with suppress(DataError):  # which ingest names
                for row in corrections.read(file) if file != self.file else ():
                    same = (row.digest, row.field) == (one.digest, one.field)
                    if same and row.new != one.new:
                        return f"{file} says {row.new!r:.40}: until you agree, neither applies."
        return ""

    def answer(self, given: dict[str, Any] | None) -> dict[str, Any]:
        """Return the person's corrections for the page, after the one that is given, if any."""
        warning = "" if given is None else self.put(given)
        rows = [{name: getattr(one, name) for name in COLUMNS} for one in self.rows()]
        return {"file": str(self.file), "rows": rows, "warning": warning}


def application(desk: Desk, key: str) -> Starlette:
    """Return the web application; `key` is the secret part of its addresses."""
    return loopback.application(
        "review", key, REPORT.read_bytes, "corrections", desk.answer, sheets=SHEETS
    )
