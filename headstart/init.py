"""`headstart init`: create a project, which contains only the user's files and no Headstart code.

The project is created completely or not at all: it is written into a temporary folder on the same
disk, and moved to its place at the end. Nothing is committed.
"""

import argparse
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import __version__, kinds
from pipeline.core import lock, packages
from pipeline.core.errors import DataError, DiskError, MissingSetError, ParamsError, RunError
from pipeline.core.paths import LOCK, PARAMS
from pipeline.examples.rows import MATRIX, PLAIN, VECTOR, Dialect, guessed
from pipeline.sources.find import TABLES

from . import graph, install, parameters, shipped

KINDS = ("image", "text", "audio", "vector")
RAW = Path("data/raw")
GRAPH = Path("dvc.yaml")
REQUIREMENTS = Path("requirements.txt")
# pip would look the bare name up, and install whatever somebody published under it.
NOT_ON_PYPI = (
    "# Headstart is not on PyPI: before others install from this file, write"
    " `@ ADDRESS OF ITS WHEEL` in the next line instead of the version."
)
README = Path("README.md")
# What a repository may have already. init adds the lines that the first ones lack, and leaves a
# README.md and the settings of DVC as they are.
OF_LINES = (Path(".dvcignore"), Path(".gitignore"), REQUIREMENTS)
KEPT = (README, Path(".dvc/config"), Path(".dvc/.gitignore"))
COPIED = (
    ".dvc/config",
    ".dvc/plots/*.json",
    ".dvcignore",
    "corrections/README.md",
    "map/README.md",
    "data/weights/.gitignore",
    "plugins/*.*",
)
OF_DVC = "/config.local\n/tmp\n/cache\n"  # what git leaves out of .dvc, as `dvc init` writes it
IGNORED = """\
__pycache__/
/.headstart/
/.venv/
/dvc_plots/
/joined
/site/*/
/site/ledger.jsonl
/site/measured.json
/site/site.md
"""
ABOUT = """\
# {name}

A project of Headstart, whose code is installed: `pip install -r requirements.txt`. This folder
holds what is yours:

| file | what it is |
| --- | --- |
| `params.yaml` | all parameters: edit this one |
| `data/raw/` | your examples: DVC keeps what `dvc add` tracks, and git the small `.dvc` files |
| `corrections/` | what people correct in the data: labels, examples to exclude |
| `map/` | the layout of the report's map, if you made one |
| `plugins/`, `data/weights/` | code and networks of your own, if you have any |
| `dvc.yaml` | the stages; you may add stages and plots of your own |
| `headstart.lock`, `requirements.txt` | the installed code and libraries that decide the results |
| `prefect.yaml` | when the project runs by itself |

```bash
headstart repro            # run what changed; then open reports/report.html
headstart why              # what would run, and why
headstart review           # correct labels from the report
headstart label POOL       # label a folder or table on a page
headstart next POOL        # which unlabelled examples to label next
headstart map              # a t-SNE layout for the report's map
headstart predict bundle FILE
headstart schedule         # run at night, and when the data changes
headstart upgrade          # after installing a newer Headstart
```

Commit all files that git does not ignore; after a run, also `dvc.lock` and `reports/metrics.json`:
`git add -A && git commit`. `dvc push` copies data and results to a remote of your own, once you
have named one with `dvc remote add`. The pages `docs/…` that comments mention are in Headstart's
repository.
"""


class Examples(NamedTuple):
    """The examples' current place (None if there are none yet), `ingest.source` and `path`.

    `dialect` is how a CSV table is written.
    """

    given: Path | None
    source: str
    path: Path
    dialect: Dialect = PLAIN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run` to a parser."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="Folder to create.")
    parser.add_argument(
        "--kind", choices=KINDS, default="image", help="Kind of the examples (default: image)."
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="Folder or table of your examples. init copies it to data/raw and tracks it with DVC.",
    )
    parser.add_argument(
        "--here", action="store_true", help="Add the project to a folder that already has files."
    )
    parser.add_argument(
        "--yes", action="store_true", help="Install missing packages without asking."
    )


def run(
    folder: Path | None,
    kind: str = "image",
    data: Path | None = None,
    here: bool = False,
    yes: bool = False,
) -> None:
    """Make a project.

    Args:
        folder: the project's folder, which is new or empty; None for the current folder.
        kind: what an example is, one of `KINDS`.
        data: the user's examples, a folder or a table. They are copied to `data/raw`, unless they
            are already in the project's folder. DVC tracks them, unless git does.
        here: whether to add the project to a folder that already has files.
        yes: whether to install missing packages of the kind without a question.

    Raises:
        DataError: there are no examples at `data`, or their layout is not supported.
        MissingSetError: git or the packages of the kind are not installed.
        ParamsError: the folder is not empty; or with `here`, a file of the project already exists.
        DiskError: a file cannot be written or copied.
        RunError: git or DVC failed.
    """
    if folder is None and not here:
        raise ParamsError("name the project's folder, or give --here for the current one")
    root = (folder or Path()).resolve()
    # The current folder is not replaced: the shell would be in a deleted one.
    here = here or (root == Path.cwd() and not any(root.iterdir()))
    if shutil.which("git") is None:
        raise MissingSetError(
            "init needs git, which is not installed: install it, and run this again"
        )
    examples = examined(data, kind, root)
    within = root if here else _existing(root.parent)
    files = contents(kind, examples, root.name)
    _check_place(root, here, files, examples)
    in_git = _git(within, "check-ignore", "-q", f"{root}/").returncode == 1  # not ignored
    tracked = examples.given and not _git(within, "ls-files", str(root / examples.path)).stdout
    if kind in packages.SETS and packages.missing(kind):
        install.install([kind], yes)
        files = contents(kind, examples, root.name)  # with the versions of what was missing
    with _temporary(within) as made:
        new = Path("project") if here else root.relative_to(within)
        staged = Path(made) / new
        staged.mkdir(parents=True)
        for name, text in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_text(text, encoding="utf-8")
        (staged / RAW).mkdir(parents=True, exist_ok=True)
        copies = examples.given is not None and examples.given != root / examples.path
        if examples.given and copies:
            copy(examples.given, staged / examples.path)
        if not in_git:
            _call(["git", "init", "-q"], staged)
        if here:
            names = [*files, *([examples.path.as_posix()] if copies else [])]
            with _added(staged, root, names):
                if tracked:
                    _track(root, examples.path)
        else:
            if tracked:
                _track(staged, examples.path)
            if root.exists():
                root.rmdir()
            (Path(made) / new.parts[0]).rename(within / new.parts[0])  # with the parents
    nouns = kinds.named(kind).nouns
    print(f"init: {root} is a project of {nouns} for Headstart {__version__}")
    steps = [] if root == Path.cwd() else [f"cd {_shown(root)}"]
    if examples.given is None:
        print(
            f"init: put your {nouns} into {root / examples.path} (ingest.source: {examples.source})"
        )
        steps.append(f"dvc add {examples.path}")
    else:
        print(f"init: {'DVC' if tracked else 'git'} tracks {examples.path}")
    print(f"init: next: {' && '.join([*steps, 'headstart repro'])}")


def contents(kind: str, examples: Examples, name: str) -> dict[str, str]:
    """Return the text of each file of a new project, by its path."""
    source = shipped.folder()
    installed = lock.installed()
    copied = [file for pattern in COPIED for file in sorted(source.glob(pattern))]
    files = {file.relative_to(source).as_posix(): file.read_text("utf-8") for file in copied}
    files[".dvc/.gitignore"] = OF_DVC
    files[".gitignore"] = IGNORED
    files["prefect.yaml"] = re.sub(
        r"(?m)^( +timezone:).*",
        rf"\1 {time_zone()}",
        (source / "prefect.yaml").read_text(encoding="utf-8"),
    )
    files[str(GRAPH)] = graph.generated((source / GRAPH).read_text(encoding="utf-8"))
    settings = parameters.of_kind(kind, examples.source, examples.path.as_posix())
    settings = parameters.put(settings, "ingest", "val_of_each_class", True)
    for key, value in examples.dialect._asdict().items():
        if value != getattr(PLAIN, key):
            settings = parameters.put(settings, "ingest", key, value)
    files[str(PARAMS)] = settings
    files[str(LOCK)] = installed.text()
    lines = (NOT_ON_PYPI, *pins(installed, kind))
    files[str(REQUIREMENTS)] = "".join(f"{line}\n" for line in lines)
    files[str(README)] = ABOUT.format(name=name)
    return files


def pins(installed: lock.Lock, kind: str) -> list[str]:
    """Return the lines of requirements.txt: Headstart, and the libraries that affect results."""
    extra = f"[{kind}]" if kind in packages.SETS else ""
    versions = lock.libraries(installed, kind)
    return [
        f"headstart{extra}=={installed.headstart}",
        *(f"{library}=={version}" for library, version in versions.items()),
    ]


def examined(data: Path | None, kind: str, root: Path) -> Examples:
    """Return the source of examples, without reading them.

    Raises:
        DataError: there are no examples, or their layout is not supported.
    """
    rows, nouns = kinds.named(kind).rows, kinds.named(kind).nouns
    if data is None:
        if not rows:
            return Examples(None, "folder", RAW / nouns)
        source = "csv" if kind == "text" else "parquet"
        return Examples(None, source, RAW / f"{nouns}.{source}")
    given = data.resolve()
    if not given.exists():
        raise DataError(f"--data {data} does not exist")
    if root.resolve().is_relative_to(given.resolve()):
        raise DataError(f"--data {data} contains the project: give the folder of the examples")
    path = given.relative_to(root) if given.is_relative_to(root) else RAW / given.name
    if given.is_dir():
        next(given.iterdir(), None)  # without permission, rglob finds nothing
        inside = [file for file in given.rglob("*") if file.is_file()]
        if not inside:
            raise DataError(f"--data {data} has no files")
        for table in TABLES:
            if (given / table).is_file():
                dialect = check_columns(given / table, {"path", rows})
                return Examples(given, Path(table).suffix[1:], path, dialect)
        if all(file.parent == given for file in inside):
            raise DataError(
                f"--data {data} has neither a folder for each class nor a table"
                f" {' or '.join(TABLES)}: lay your {nouns} out in one of these ways"
            )
        return Examples(given, "folder", path)
    ending = given.suffix[1:]
    if not rows or ending not in ("csv", "parquet") or (kind, ending) == ("vector", "csv"):
        raise DataError(
            f"--data {data} is a file; for {nouns} give a folder"
            + (f" or a table {'.csv or ' * (kind == 'text')}.parquet" if rows else "")
            + f"; if the folder has a table, name it {' or '.join(TABLES)}"
            + "; for a table of texts add --kind text"
            * (kind == "image" and ending in ("csv", "parquet"))
        )
    return Examples(given, ending, path, check_columns(given, {rows}))


def check_columns(table: Path, fitting: set[str]) -> Dialect:
    """Check the header of a table, and return the dialect that the table seems to have.

    A missing column `label` is only a warning, since `ingest.label` may name a different one.

    Args:
        table: CSV or Parquet.
        fitting: names of columns, one of which must have the examples or their paths.

    Raises:
        DataError: the table has none of these columns, or cannot be read.
    """
    dialect = PLAIN
    try:
        if table.suffix == ".csv":
            dialect = guessed(table)
            encoding = "utf-8-sig" if dialect.encoding == PLAIN.encoding else dialect.encoding
            with table.open(encoding=encoding, newline="") as lines:
                header = next(csv.reader(lines, delimiter=dialect.separator), [])
            columns = [name.strip() for name in header]
        else:
            columns = pq.read_schema(table).names
    except (csv.Error, UnicodeDecodeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{table} cannot be read as a table: {reason}") from None
    if not columns:
        raise DataError(f"{table} is empty: its first line should have the names of the columns")
    has = f"it has {', '.join(columns)}"
    beside = VECTOR in fitting and table.suffix == ".csv" and table.with_name(MATRIX).exists()
    if not (fitting & {*columns} or beside):
        wanted = " or ".join(sorted(fitting - {""}, reverse=True))
        raise DataError(f"{table} has no column {wanted}; {has}: rename yours")
    if "label" not in columns:
        print(
            f"init: warning: {table} has no column label; {has}: name yours in ingest.label, or the"
            " columns to learn in ingest.targets"
        )
    if dialect != PLAIN:
        print(
            f"init: {table} is read as {dialect.encoding} with {dialect.separator!r} between the"
            " cells; if that is wrong, change ingest.encoding and ingest.separator in params.yaml"
        )
    return dialect


def copy(given: Path, place: Path) -> None:
    """Copy a folder or a file; links are followed, since the project is moved and cloned.

    Raises:
        DiskError: a file could not be copied.
    """
    print(f"init: copying {given}", flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not given.is_dir():
        shutil.copy2(given, place)
        return
    try:
        shutil.copytree(given, place, ignore_dangling_symlinks=True)
    except shutil.Error as error:  # a reason for each file
        (file, _, reason), *others = error.args[0]
        more = f", and {len(others)} more" if others else ""
        raise DiskError(f"{file} cannot be copied: {reason}{more}") from None


def time_zone() -> str:
    """Return the name of this machine's time zone; UTC if it has none."""
    named = Path("/etc/timezone")
    candidates = [
        os.environ.get("TZ", "").removeprefix(":"),
        os.path.realpath("/etc/localtime"),
        named.read_text(encoding="utf-8").strip() if named.exists() else "",
    ]
    for candidate in candidates:
        name = candidate.rpartition("zoneinfo/")[2]
        try:
            return ZoneInfo(name).key
        except (ValueError, OSError, LookupError):  # LookupError: no such zone
            continue
    return "UTC"


def _check_place(root: Path, here: bool, files: dict[str, str], examples: Examples) -> None:
    """Check that the project can be created in `root` without overwriting the user's files.

    Raises:
        ParamsError: the project cannot be created there; the message says why.
    """
    if (root / LOCK).exists():
        raise ParamsError(f"{root} is a project already: `headstart upgrade` brings it up to date")
    if not here:
        if not _existing(root.parent).is_dir():
            raise ParamsError(f"{_existing(root.parent)} is not a folder: name another place")
        if root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise ParamsError(
                f"{root} is not an empty folder: name a new one, or give --here to add the"
                " project's files to it"
            )
        return
    if not root.is_dir():
        raise ParamsError(
            f"--here needs a folder, but {root} is not one: leave --here out to create it"
        )
    wanted = [name for name in map(Path, files) if name not in (*OF_LINES, *KEPT)]
    if examples.given not in (None, root / examples.path):
        wanted.append(examples.path)
    if there := sorted(f"{name}" for name in wanted if (root / name).exists()):
        raise ParamsError(
            f"{root} has {', '.join(there)} already: rename what is yours first, or name a new"
            " folder below it"
        )


def _temporary(within: Path) -> "tempfile.TemporaryDirectory[str]":
    """Return a new folder inside `within`, which is deleted at the end."""
    try:
        return tempfile.TemporaryDirectory(prefix=".headstart-", dir=within)
    except OSError as error:  # which should name the user's folder
        raise DiskError(f"nothing can be written to {within}: {error.strerror}") from None


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())


@contextmanager
def _added(staged: Path, root: Path, names: list[str]) -> Iterator[None]:
    """Move a project's files into a folder that has other files; undo this if an error follows."""
    moved: list[Path] = []
    before: dict[Path, Path] = {}  # the user's files, by where they are kept until the end
    for name in OF_LINES:
        there = (root / name).read_bytes() if (root / name).exists() else b""
        (staged / name).write_bytes(_joined(there, (staged / name).read_bytes()))
    try:
        for name in [Path(name) for name in [*names, ".git"] if Path(name) not in OF_LINES]:
            while not (root / name.parent).exists():
                name = name.parent  # a folder moves whole
            if (staged / name).exists() and not (root / name).exists():
                (staged / name).rename(root / name)
                moved.append(root / name)
        for name in OF_LINES:
            if (root / name).exists():
                kept = (root / name).rename(staged.with_name(name.name))
                before[kept] = root / name
            moved.append((staged / name).rename(root / name))
        yield
    except BaseException:
        for place in moved:
            place.unlink() if place.is_file() else shutil.rmtree(place)
        for kept, place in before.items():
            kept.rename(place)
        raise


def _joined(before: bytes, new: bytes) -> bytes:
    """Return the lines of a file, followed by the lines of `new` that it lacks."""
    lines = before.splitlines()
    lacking = b"".join(line + b"\n" for line in new.splitlines() if line not in lines)
    return before + b"\n" * (bool(before) and not before.endswith(b"\n")) + lacking


def _track(root: Path, path: Path) -> None:
    """Let DVC track the examples.

    Raises:
        ParamsError: git would ignore the `.dvc` file of the examples.
        RunError: DVC failed.
    """
    if _git(root, "check-ignore", "-q", f"{path}.dvc").returncode == 0:
        raise ParamsError(
            f"git ignores {path}.dvc, but DVC needs it to track the examples: change .gitignore"
        )
    # -P: a module of the user's must not shadow anything that DVC imports.
    _call([sys.executable, "-P", "-m", "dvc", "add", path.as_posix()], root)


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a git command in a folder, which need not be in a repository."""
    asked = ["git", "-C", str(folder), *arguments]
    return subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603


def _call(command: list[str], folder: Path) -> None:
    """Run a program, and discard its output.

    Raises:
        RunError: the program failed; the message ends with the last line of its output.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise RunError(f"{' '.join(command[-3:])} failed: {last}")


def _shown(folder: Path) -> str:
    """Quote a path for the shell; make it relative if it is below the current folder."""
    here = Path.cwd()
    return shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))
