"""Let DVC do once what it does several times: compute digests, parse files, read git's index.

`flows.dvc.process` runs this file without its package, so it imports nothing of `flows`.
"""

import bisect
import contextlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import dvc.dependency.param
import dvc.dvcfile
import dvc.stage.run
from dvc.dvcfile import LOCK_FILE
from dvc.output import Output
from dvc.scm import Git
from dvc.utils.serialize import YAMLFileCorruptedError, dump_yaml, dumps_yaml, parse_yaml

ANCHOR = re.compile(r": &|- &")  # YAML names an object that it writes twice


@contextlib.contextmanager
def look_once() -> Iterator[None]:
    """Let DVC build a file's or folder's digest again only if a stamp changed since the last time.

    For each stage, DVC builds the digest of each input seven times before the command and three
    times after it, and that of each output twice, and the next stage does the same with its inputs.
    Even if DVC's state has the digests of all files, that takes 0.2 s for 10,000 files. The stamps
    of all files, which take 0.03 s, have all that DVC's state trusts (inode, size and time).
    Parameters and git's index are parsed once as well.
    """
    looks: dict[Any, tuple[Any, ...]] = {}
    trusted: dict[Any, tuple[Any, Any]] = {}  # by a stage, until its command starts
    build, load = Output._build, dvc.dependency.param.load_path
    start = dvc.stage.run.cmd_run

    def build_once(out: Output, odb: Any, path: str, *others: Any, **options: Any) -> Any:
        key = out.fs.protocol, odb.path, path, out.hash_name
        stage, built = trusted.get(key, (None, None))
        if stage is out.stage and out.IS_DEPENDENCY:
            return built
        given = out, odb, path, *others
        is_local = out.fs.protocol == "local" and out.repo is not None
        built = (build_if_changed if is_local else build)(*given, **options)
        if out.IS_DEPENDENCY:
            trusted[key] = out.stage, built
        return built

    def build_if_changed(out: Output, odb: Any, path: str, *others: Any, **options: Any) -> Any:
        seen = stamp(path), stamp(f"{out.repo.root_dir}/.dvcignore")
        key, dry = (odb.path, path, out.hash_name), options.get("dry_run", False)
        # A build for a commit has the digest too, but can be used only with the same opened cache.
        for of_dry in (False, True) if dry else (False,):
            known, built, of = looks.get((*key, of_dry), (None, None, None))
            if known == seen and seen[0] and (dry or of is odb):
                return built
        built = build(out, odb, path, *others, **options)
        looks[*key, dry] = seen, built, odb
        return built

    def start_anew(*arguments: Any, **options: Any) -> None:
        trusted.clear()
        start(*arguments, **options)

    def load_once(path: str, fs: Any, *arguments: Any, **options: Any) -> Any:
        if fs.protocol != "local":
            return load(path, fs, *arguments, **options)
        return once(path, lambda: load(path, fs, *arguments, **options))

    def tracked(git: Any, path: str) -> bool:
        repo = git.dulwich.repo
        names = once(repo.index_path(), lambda: sorted(repo.open_index()))
        name = os.path.relpath(path, git.root_dir).replace(os.path.sep, "/").encode()
        places = [bisect.bisect_left(names, one) for one in (name, name + b"/")]
        found = [b"".join(names[place : place + 1]) for place in places]
        return found[0] == name or found[1].startswith(name + b"/")

    def once(path: str, read: Callable[[], Any]) -> Any:
        seen = stamp(path)
        if not seen or looks.get(path, ("",))[0] != seen:
            looks[path] = seen, read()
        return looks[path][1]

    with _patched(
        (Output, "_build", build_once),
        (dvc.dependency.param, "load_path", load_once),
        (dvc.stage.run, "cmd_run", start_anew),
        (Git, "is_tracked", tracked),
    ):
        yield


@contextlib.contextmanager
def _patched(*patches: tuple[Any, str, Any]) -> Iterator[None]:
    """Set attributes, and set them back at the end."""
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in patches]
    try:
        for patch in patches:
            setattr(*patch)
        yield
    finally:
        for patch in before:
            setattr(*patch)


def stamp(path: str) -> bytes:
    """Return a digest that changes if the file, or a file in the folder, does; empty if missing."""
    found = blake2b(digest_size=16)

    def add(name: str, of: os.stat_result) -> None:
        numbers = of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns, of.st_mode
        found.update(f"{name}\0{numbers}".encode(errors="surrogateescape"))

    try:
        of = Path(path).stat()
        add("", of)
        folders = [path] if stat.S_ISDIR(of.st_mode) else []
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:  # DVC follows links to files, and none to folders
                    add(entry.path, entry.stat())
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    except OSError:  # it is missing, or a link is broken
        return b""
    return found.digest()


@contextlib.contextmanager
def parse_once() -> Iterator[None]:
    """Let DVC write only the entry of dvc.lock that changed.

    Before each stage's entry is written, DVC parses the whole file with its comments, and then
    writes the whole file. Each takes as long as all else that DVC does for a stage. If the file has
    comments or anchors, it is still parsed with them, but only before its first change, and again
    if somebody else changed it.
    """
    known: dict[str, tuple[str, Any, bool]] = {}  # what was written last, and from what
    modify = dvc.dvcfile.modify_yaml

    @contextlib.contextmanager
    def modify_known(path: str, fs: Any = None) -> Iterator[Any]:
        file = Path(path)
        old = file.read_text(encoding="utf-8") if file.exists() else ""
        text, data, complete = known.pop(path, ("", None, False))
        if foreign := text != old or data is None:
            plain = old and file.name == LOCK_FILE and "#" not in old and not ANCHOR.search(old)
            data, complete = parse_yaml(old, path) if plain else None, False
        if data is None:
            with modify(path, fs=fs) as data:
                yield data
            complete = True
        else:
            before = dict(data.setdefault("stages", {}))
            yield data
            new = _spliced(old, before, data)
            if new and foreign and not _reads_as(new, path, data):  # its lines are not as DVC's
                new = None
            if new:
                file.write_text(new, encoding="utf-8")
            elif complete:
                dump_yaml(path, data, fs=fs)
            else:
                with modify(path, fs=fs) as whole:
                    changed = _changed(before, data["stages"])
                    whole.update({name: data[name] for name in data if name != "stages"})
                    whole["stages"].update({name: data["stages"][name] for name in changed})
                data, complete = whole, True
        text = file.read_text(encoding="utf-8")
        stages = data.get("stages", {})
        if file.name == LOCK_FILE and not ANCHOR.search(text):
            stages.update({name: _unshared(entry) for name, entry in stages.items()})
            known[path] = text, data, complete

    with _patched((dvc.dvcfile, "modify_yaml", modify_known)):
        yield


def _reads_as(text: str, path: str, data: Any) -> bool:
    with contextlib.suppress(YAMLFileCorruptedError):
        return bool(parse_yaml(text, path) == data)
    return False


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [name for name in now if now[name] is not before.get(name)]


def _spliced(text: str, before: dict[str, Any], data: dict[str, Any]) -> str | None:
    """Return the text of a lock file with the one entry that changed; None if that is not safe."""
    now = data["stages"]
    changed = _changed(before, now)
    if "#" in text or len(changed) != 1 or before.keys() - now.keys():
        return None
    entry = dumps_yaml({"stages": {changed[0]: now[changed[0]]}}).removeprefix("stages:\n")
    if changed[0] not in before:
        last = before and list(data)[-1] == "stages" and text.endswith("\n")
        return text + entry if last else None
    key = re.escape(entry.partition("\n")[0])
    found = re.search(rf"^{key}\n(?:    .*\n|\n)*", text, re.MULTILINE)
    return text[: found.start()] + entry + text[found.end() :] if found else None


def _unshared(entry: Any) -> Any:
    """Copy the dicts and lists of a new entry: YAML writes a repeated object as an alias."""
    if type(entry) in (dict, OrderedDict):  # those that were parsed have their comments
        return {name: _unshared(value) for name, value in entry.items()}
    return [*map(_unshared, entry)] if type(entry) is list else entry
