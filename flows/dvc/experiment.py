"""Run with different parameters in a copy of the working copy, saved as a DVC experiment."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.errors import ExperimentError, ParamsError
from pipeline.core.paths import PARAMS

CHANGES = re.compile(r"([\w.]+)=")  # not +KEY, which adds one, nor what only Hydra understands


def check_overrides(root: Path, overrides: list[str]) -> None:
    """Check the names of the parameters that `overrides` change, before anything is started.

    Raises:
        ParamsError: `params.yaml` in `root` has no such key.
    """
    try:
        keys = set(_keys(yaml.safe_load((root / PARAMS).read_bytes())))
    except (OSError, yaml.YAMLError):  # the run will report it
        return
    for override in overrides:
        found = CHANGES.match(override)
        if not found or found[1] in keys:
            continue
        meant = "".join(f"; did you mean {near}?" for near in get_close_matches(found[1], keys, 1))
        raise ParamsError(
            f"--set {override}: {PARAMS} has no {found[1]}{meant or '.'} To add a parameter to it,"
            " write --set +KEY=VALUE"
        )


def _keys(section: Any, above: str = "") -> Iterator[str]:
    """Yield the dotted name of each key in a section and in those below it."""
    for key, value in section.items() if isinstance(section, dict) else ():
        yield f"{above}{key}"
        yield from _keys(value, f"{above}{key}.")


@contextmanager
def copy_of(root: Path, name: str) -> Iterator[Path]:
    """Copy the working copy, with changes that are not committed, for the experiment `name`.

    The copy is a git clone that shares the git objects of `root`, without DVC's data and outputs
    and without files that git ignores. If `root` is a subfolder of a git repository, the copy is
    the same subfolder of such a clone. The copy is deleted at the end.

    Raises:
        ExperimentError: `root` is not in git, has no commit or already has an experiment of that
            name, or DVC does not accept the name.
    """
    if "/" in name or _fails(root, "check-ref-format", f"refs/exps/{name}"):
        raise ExperimentError(
            f"{name!r} cannot name an experiment: use letters, digits, - and _ for --name"
        )
    if not _git(root, "rev-list", "--all", "--max-count=1"):
        raise ExperimentError("an experiment needs a git commit, and there is none yet: make one")
    if _git(root, "for-each-ref", f"refs/exps/*/*/{name}"):
        raise ExperimentError(
            f"there is an experiment {name!r} already: choose another name, or remove it with "
            f"`dvc exp remove {name}`"
        )
    copies = root / ".dvc" / "tmp" / "headstart"
    shutil.rmtree(copies, ignore_errors=True)  # left by a run that died
    clone = copies / name
    copy = clone / _git(root, "rev-parse", "--show-prefix")
    try:
        _git(root, "clone", "--quiet", "--shared", "--no-checkout", _top(root), str(clone))
        # Detached, because the experiment belongs to no branch of the clone.
        _git(clone, "checkout", "--quiet", "--detach", _git(root, "rev-parse", "HEAD"))
        # Else git takes a file rewritten with the same content for a change, and cannot stash it.
        _git(root, "update-index", "-q", "--refresh")
        if changes := _git(root, *_SOMEBODY, "stash", "create"):
            _git(clone, "read-tree", "--reset", "-u", changes)
        for new in _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0"):
            if new.endswith("/"):
                raise ExperimentError(
                    f"{new} is a git repository, which an experiment cannot contain: let git ignore"
                    " it, or move it out of the working copy"
                )
            if new:
                (copy / new).parent.mkdir(parents=True, exist_ok=True)
                _copy(root / new, copy / new)
        for entry in _git(root, "ls-files", "--stage", "-z").split("\0"):
            link = entry.partition("\t")[2]
            if entry.startswith("120000") and (root / link).exists() > (copy / link).exists():
                # The link leads out of the working copy, and would lead elsewhere from the copy.
                (copy / link).unlink()
                _copy(root / link, copy / link)
                _git(copy, "update-index", "--skip-worktree", link)
        for knob in ("user.name", "user.email"):
            _git(copy, "config", knob, _git(root, "config", "--default", "headstart", knob))
        local = root / ".dvc" / "config.local"
        if local.exists():
            shutil.copy2(local, copy / ".dvc")
        yield copy
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def bring_home(root: Path, copy: Path, name: str) -> str:
    """Fetch the saved experiment from the copy into `root`'s git, and return its commit."""
    (reference,) = _git(
        copy, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}"
    ).splitlines()
    _git(root, "fetch", "--quiet", _top(copy), f"{reference}:{reference}")
    return _git(root, "rev-parse", reference)


def _copy(source: Path, target: Path) -> None:
    """Copy a file; copy a link to a folder (pictures stored elsewhere) as a link."""
    if source.is_symlink() and not source.is_file():
        target.symlink_to(source.parent / source.readlink())  # a relative link starts at `source`
    else:
        shutil.copy2(source, target)


# A stash needs an author; nobody sees this one.
_SOMEBODY = ["-c", "user.name=headstart", "-c", "user.email=headstart@localhost"]


def _top(folder: Path) -> str:
    """Return the root of the git repository that `folder` is in."""
    return _git(folder, "rev-parse", "--show-toplevel")


def _fails(folder: Path, *arguments: str) -> bool:
    return subprocess.run(["git", *arguments], cwd=folder).returncode != 0  # noqa: S603, S607


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise ExperimentError(f"git {arguments[0]}: {reason.splitlines()[-1]}")
    return done.stdout.strip()
