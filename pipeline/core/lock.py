"""`headstart.lock`: the installed code and libraries that a project's results were made with.

A project that `headstart init` made contains no Headstart code. DVC reads this file as parameters
instead: each stage of the project's `dvc.yaml` declares the lines of the stage's own file, of the
subpackages that it imports and of the project's kind. `check` makes sure that the lines of
`headstart.lock` describe what is installed.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from .. import __version__
from . import yaml_in_c
from .errors import LockError
from .paths import LOCK, PARAMS

# Libraries whose versions may change an output, by the modules that are imported. Those that run
# only optional networks are left out: installing one must not make anything stale, and the feature
# store's keys contain their versions.
COUNTED = {
    "PIL": "pillow",
    "albumentations": "albumentations",
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
    "py3langid": "py3langid",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "tokenizers": "tokenizers",
}
# Begins with the end of the previous line: Python finds `\n` twice as fast as the start of a line.
IMPORTED = re.compile(
    rf"\n[ \t]*(?:from ({'|'.join(COUNTED)})[. ].*\bimport|import ({'|'.join(COUNTED)}))\b".encode()
)
# Subpackages that no stage declares: nothing in them affects an output, or no stage imports them.
UNDECLARED = ("core", "store", "federated")
CODE = "code"  # the digest in an entry; the other keys are libraries
DOOR = "door"  # the interface of all kinds, kinds/__init__.py
HEADER = "# headstart init and headstart upgrade write this file. Commit it, and do not edit it.\n"
NAMED = 3  # parts in a message; the rest are counted
UPGRADE = "`headstart upgrade`"

Entry = Mapping[str, str]  # a digest of code, and the versions of the libraries that it imports


@dataclass(frozen=True)
class Lock:
    """The code and libraries that affect a project's results.

    headstart: the version of Headstart. stages: the digest of each stage's file. rooms: an entry
    for each subpackage that a stage may import. kinds: an entry for each kind, and one for their
    interface.
    """

    headstart: str
    stages: Mapping[str, str]
    rooms: Mapping[str, Entry]
    kinds: Mapping[str, Entry]

    @classmethod
    def read(cls, file: Path = LOCK) -> "Lock":
        """Read the file.

        Raises:
            LockError: the file does not exist, or was not written by `write`.
        """
        try:
            document = yaml_in_c.load(file.read_bytes())
            lock = cls(**document)
            entries = [*lock.rooms.values(), *lock.kinds.values()]
            values = [lock.headstart, *lock.stages.values(), *(entry[CODE] for entry in entries)]
            values += [one for entry in entries for one in entry.values()]
            whole = all(isinstance(value, str) for value in values)
        except FileNotFoundError:
            raise LockError(
                f"{file} is missing: run `git checkout {file.name}`, or {UPGRADE}"
            ) from None
        except (yaml.YAMLError, UnicodeError, TypeError, AttributeError, KeyError):
            whole = False
        if not whole:
            raise LockError(f"{file} is damaged: run {UPGRADE}, or `git checkout {file.name}`")
        return lock

    def write(self, file: Path = LOCK) -> None:
        """Write the file, sorted, with a line for each entry."""
        file.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """Return the content of the file."""
        lines = [f"{HEADER}headstart: {_quoted(self.headstart)}", "stages:"]
        lines += [f"  {name}: {_quoted(digest)}" for name, digest in sorted(self.stages.items())]
        for title, entries in (("rooms", self.rooms), ("kinds", self.kinds)):
            lines.append(f"{title}:")
            for name, entry in sorted(entries.items()):
                values = (f"{key}: {_quoted(value)}" for key, value in sorted(entry.items()))
                lines.append(f"  {name}: {{{', '.join(values)}}}")
        return "\n".join(lines) + "\n"

    def entries(self, kind: str) -> dict[str, Entry]:
        """Return what a project of a kind depends on, by the names that `dvc.yaml` declares."""
        used = {name: self.kinds[name] for name in (DOOR, kind) if name in self.kinds}
        return {
            **{f"stages.{name}": {CODE: digest} for name, digest in self.stages.items()},
            **{f"rooms.{name}": entry for name, entry in self.rooms.items()},
            **{f"kinds.{name}": entry for name, entry in used.items()},
        }


def installed() -> Lock:
    """Return what is installed here; this takes about 40 ms."""
    package = Path(__file__).parents[1]
    versions = {module: _version(library) for module, library in COUNTED.items()}

    def entry(*files: Path) -> Entry:
        return _entry(files, package, versions)

    def of_folders(folder: Path) -> dict[str, Entry]:
        inside = (one for one in folder.iterdir() if one.is_dir() and one.name[0] not in "_.")
        return {one.name: entry(*_files(one)) for one in inside}

    rooms = of_folders(package)
    return Lock(
        headstart=__version__,
        stages={file.stem: entry(file)[CODE] for file in package.glob("[!_]*.py")},
        rooms={name: rooms[name] for name in rooms.keys() - {*UNDECLARED, "kinds"}},
        kinds=of_folders(package / "kinds") | {DOOR: entry(package / "kinds" / "__init__.py")},
    )


def check(root: Path = Path()) -> None:
    """Check that the project in `root` was made with what is installed here.

    A clone passes: its `dvc.yaml` does not name `headstart.lock`, because DVC watches its code.

    Raises:
        LockError: the message says in one line what differs, and what to run.
    """
    graph = root / "dvc.yaml"
    named = graph.exists() and LOCK.name.encode() in graph.read_bytes()
    if not named and not (root / LOCK).exists():
        return
    if difference := differs(Lock.read(root / LOCK), installed(), kind_in(root / PARAMS)):
        raise LockError(difference)


def differs(lock: Lock, here: Lock, kind: str) -> str:
    """Return what is wrong with a project of a kind, and what to do; empty if nothing is."""
    other = (
        f"this project was made with Headstart {lock.headstart}, but {here.headstart} is installed"
    )
    pins = "run `pip install -r requirements.txt`"
    if is_newer(lock, here):
        return f"{other}: {pins}"
    locked, needed = lock.entries(kind), here.entries(kind)
    names = [name for name in needed if locked.get(name, {}).get(CODE) != needed[name][CODE]]
    if names or locked.keys() != needed.keys():
        if here.headstart != lock.headstart:
            return f"{other}: run {UPGRADE}, or install {lock.headstart} ({pins})"
        parts = sorted({name.partition(".")[2] for name in names or locked.keys() ^ needed.keys()})
        more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
        return (
            f"the installed code of Headstart {here.headstart} differs from {LOCK} (code of"
            f" {', '.join(parts[:NAMED])}{more}): run {UPGRADE}"
        )
    for name, entry in needed.items():
        for library in sorted({*entry, *locked[name]} - {CODE}):
            before, now = locked[name].get(library), entry.get(library)
            if now != before:
                has = f"{library} {now} is" if now else f"{library} is not"
                return f"{has} installed, and {LOCK} has {before or 'none'}: {pins}, or {UPGRADE}"
    return ""


def is_newer(lock: Lock, here: Lock) -> bool:
    """Return whether a project was made with a newer version than is installed."""
    return _numbers(here.headstart) < _numbers(lock.headstart)


def in_words(changes: Iterable[tuple[str, str, str]], versions: str = "") -> list[str]:
    """Describe what changed in a lock: the parts whose code changed, and the libraries.

    Args:
        changes: names of values, such as `rooms.heads.code`, with the old and the new value.
        versions: text after the parts, such as the old and the new version of Headstart.
    """
    parts, libraries = [], []
    for name, before, now in changes:
        _, part, *library = name.split(".")
        if not library or library == [CODE]:
            parts.append(part)
        else:
            libraries.append(f"{library[0]} {before} → {now}")
    code = [f"code of {', '.join(dict.fromkeys(parts))} changed{versions}"] if parts else []
    return [*code, *dict.fromkeys(libraries)]  # many entries have the same library


def kind_in(file: Path) -> str:
    """Return `ingest.kind` of a `params.yaml`; empty if it cannot be read."""
    try:
        return str(yaml_in_c.load(file.read_bytes())["ingest"]["kind"])
    except (OSError, yaml.YAMLError, UnicodeError, TypeError, KeyError):
        return ""  # the check of the parameters says what is wrong


def libraries(lock: Lock, kind: str) -> dict[str, str]:
    """Return the libraries that a project of a kind depends on, with their versions, sorted."""
    entries = lock.entries(kind).values()
    return dict(sorted({k: v for entry in entries for k, v in entry.items() if k != CODE}.items()))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, at any depth, except those that Python compiled."""
    for place, _, names in os.walk(folder):
        if not place.endswith("__pycache__"):
            yield from (Path(place, name) for name in names)


def _entry(files: Iterable[Path], package: Path, versions: Mapping[str, str]) -> Entry:
    """Return the digest of files, and the versions of the libraries that they import."""
    digest = hashlib.sha256()
    modules: set[str] = set()
    for name, file in sorted((file.relative_to(package).as_posix(), file) for file in files):
        data = file.read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
        if file.suffix == ".py":
            modules |= {(one or other).decode() for one, other in IMPORTED.findall(b"\n" + data)}
    found = {COUNTED[module]: versions[module] for module in modules if versions[module]}
    return {CODE: digest.hexdigest()[:12], **found}


def _version(library: str) -> str:
    """Return the version of an installed library; empty if it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version such as 0.10.2, for comparison."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _quoted(value: str) -> str:
    """Return a value in quotes: without them, YAML reads 12e456 and 1.10 as numbers."""
    return f'"{value}"'
