"""The process that talks to DVC: it handles one request at a time, and dies with its parent.

`flows.dvc.pool` starts it as `python process.py TOKEN GRACE`, so it imports nothing of `flows` by
name. With a third argument it forks stages, see `forked.py`. A request is a line of JSON on stdin.
The reply is the token followed by a line of JSON on stdout, after whatever the stage itself
printed. The process has its own session, so that it and the stage it runs are one process group.
The end of stdin means that the parent has died or wants to stop (the kernel closes the pipe even
after kill -9): the stage is then asked to stop and, if need be, killed.
"""

import contextlib
import importlib.util
import json
import logging
import os
import queue
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

import dvc.stage.run
from dvc.config import NoRemoteError
from dvc.dvcfile import LOCK_FILE, PROJECT_FILE, Lockfile
from dvc.exceptions import (
    DvcException,
    FileTransferError,
    InvalidArgumentError,
    ReproductionError,
)
from dvc.lock import LockError
from dvc.parsing import ResolveError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.scm import SCMError, map_scm_exception
from dvc.stage import Stage
from dvc.stage.exceptions import StageCmdFailedError
from dvc.ui import ui
from dvc.utils.hydra import apply_overrides
from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError
from dvc_data.hashfile.hash_info import HashInfo


def plan(repo: Repo, targets: list[str], force: bool) -> dict[str, Any]:
    """Return the stages of a run of `targets` (all of dvc.yaml if empty), in DVC's own order.

    `changed` is whether `dvc repro` would do anything. It is computed only if nothing upstream
    changed: for stages below a changed one, it is unknown until that one has run.
    """
    with lock_repo(repo):
        mend_lock(repo)
        graph = get_active_graph(repo.index.graph)
        steps = plan_repro(graph, collect_stages(repo, targets or [PROJECT_FILE]))
        changed: dict[Stage, bool] = {}
        for stage in steps:
            above = any(changed[upstream] for upstream in graph.successors(stage))
            changed[stage] = force or above or stage.changed()
        # A `.dvc` file has no command; it is a step only if its data is new.
        shown = [stage for stage in steps if stage.cmd or changed[stage]]
        return {
            "stages": [
                {
                    "name": stage.addressing,
                    "upstream": [up.addressing for up in graph.successors(stage) if up in shown],
                    "tags": list((stage.meta or {}).get("tags", [])),
                    "lock": lock_file(repo, stage),
                    "outs": [relative(repo, out.fs_path) for out in stage.outs],
                    "uncached": [
                        relative(repo, out.fs_path) for out in stage.outs if not out.use_cache
                    ],
                    "changed": changed[stage],
                    "command": stage.cmd,
                }
                for stage in shown
            ],
            "metrics": metrics(repo),
        }


def mend_lock(repo: Repo) -> None:
    """Delete a dvc.lock that DVC cannot read.

    DVC writes the file in place, so a DVC that is killed while it writes leaves half a file. Little
    is lost: if the inputs of a stage did not change, its result is in DVC's run cache.
    """
    file = Path(repo.root_dir, LOCK_FILE)
    try:
        Lockfile(repo, str(file)).load()
    except (YAMLSyntaxError, YAMLValidationError) as error:
        print(f"{error}: {LOCK_FILE} is deleted, and DVC looks its results up in the run cache")
        file.unlink()


def reproduce(repo: Repo, stage: str, force: bool) -> dict[str, Any]:
    """Let DVC bring one stage up to date; return the outcome, such as `ran`, and the seconds."""
    start = time.monotonic()
    with noted_commands() as commands:
        done = repo.reproduce(stage, single_item=True, force=force)
    seconds = time.monotonic() - start
    if not done:
        return {"outcome": "unchanged"}
    outcome = "ran" if commands else "restored" if done[0].cmd else "tracked"
    return {"outcome": outcome, "seconds": seconds}


@contextlib.contextmanager
def noted_commands() -> Iterator[list[Stage]]:
    """Add each stage whose command DVC starts to the yielded list."""
    commands: list[Stage] = []
    start = dvc.stage.run.cmd_run

    def note_and_start(stage: Stage, *arguments: Any, **options: Any) -> None:
        commands.append(stage)
        start(stage, *arguments, **options)

    dvc.stage.run.cmd_run = note_and_start
    try:
        yield commands
    finally:
        dvc.stage.run.cmd_run = start


def lock_file(repo: Repo, stage: Stage) -> str:
    """Return the file in which DVC records the stage's result: dvc.lock, or the `.dvc` file."""
    path = Path(relative(repo, stage.path))
    return str(path if path.suffix == ".dvc" else path.with_suffix(".lock"))


def relative(repo: Repo, path: str) -> str:
    """Return a path relative to the root of the repository."""
    return os.path.relpath(path, repo.root_dir)


def metrics(repo: Repo) -> dict[str, Any]:
    """Return the content of the metrics files by path."""
    shown = repo.metrics.show().get("", {})
    return {path: entry.get("data", {}) for path, entry in shown.get("data", {}).items()}


def pull(repo: Repo, remote: str | None) -> None:
    """Fetch the files in dvc.lock and the `.dvc` files; skip outputs that were never pushed."""
    repo.pull(remote=remote, allow_missing=True)


def push(repo: Repo, remote: str | None) -> None:
    """Push the files in dvc.lock and the `.dvc` files."""
    repo.push(remote=remote)


def update(repo: Repo) -> None:
    """Update the data of `dvc import` and `dvc import-url` to its newest version."""
    for stage in imports(repo):
        repo.update([stage.path])


def outdated(repo: Repo) -> dict[str, Any]:
    """Return the imports that have a newer version at their source."""
    with lock_repo(repo):
        stale = [stage for stage in imports(repo) if stage.status(check_updates=True)]
        return {"imports": [relative(repo, stage.path) for stage in stale]}


def imports(repo: Repo) -> list[Stage]:
    """Return the `.dvc` files whose data comes from elsewhere."""
    return [stage for stage in repo.index.stages if stage.is_import]


def checkout(repo: Repo, targets: list[str]) -> None:
    """Check out outputs as in dvc.lock and the `.dvc` files; all outputs if none is named."""
    repo.checkout(targets or None, force=True, allow_missing=True)


def digests(repo: Repo, paths: list[str]) -> dict[str, Any]:
    """Return the MD5 of each output that DVC caches, as in dvc.lock, and git's HEAD."""
    outs = {relative(repo, out.fs_path): out for stage in repo.index.stages for out in stage.outs}
    found = {path: outs[path].hash_info for path in paths if path in outs and outs[path].use_cache}
    commit = None
    with contextlib.suppress(SCMError), map_scm_exception():  # no commit yet, or no git
        commit = repo.scm.get_rev()
    own = repo.cache.local.hash_name
    return {
        "digests": {path: info.value for path, info in found.items() if info.name == own},
        "commit": commit,
    }


def fetch(repo: Repo, digests: dict[str, str], to: str, remote: str | None) -> None:
    """Copy files from DVC's cache to a folder, by their digests.

    Args:
        digests: maps a file's name in the folder to its MD5.
        remote: the DVC remote for files that the cache lacks; the default one if None.
    """
    cache = repo.cache.local
    for path, digest in digests.items():
        if not cache.exists(digest):
            with contextlib.suppress(NoRemoteError):
                repo.cloud.pull([HashInfo(cache.hash_name, digest)], remote=remote)
        if not cache.exists(digest):
            raise DvcException(
                f"{path} with MD5 {digest} is neither in DVC's cache nor in a remote"
            )
        target = Path(to, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cache.oid_to_path(digest), target)


def cache_dir(repo: Repo) -> dict[str, Any]:
    """Return the folder of DVC's cache."""
    return {"path": repo.cache.local_cache_dir}


def share_cache(repo: Repo, path: str) -> None:
    """Use the DVC cache at `path` from now on."""
    with repo.config.edit("local") as config:
        config["cache"]["dir"] = path


def override(repo: Repo, overrides: list[str]) -> None:
    """Write overrides such as `train.optimizer=sgd` into params.yaml."""
    try:
        apply_overrides(str(Path(repo.root_dir, "params.yaml")), overrides)
    except InvalidArgumentError as error:
        raise DvcException(str(error.__cause__ or error)) from None


def save(repo: Repo, name: str) -> None:
    """Save the working copy as the DVC experiment `name`."""
    repo.experiments.save(name=name)


REQUESTS: dict[str, Callable[..., dict[str, Any] | None]] = {
    function.__name__: function
    for function in (
        *(plan, reproduce, metrics, pull, push, update, outdated),
        *(checkout, digests, fetch, cache_dir, share_cache, override, save),
    )
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request; a failure is also a reply, with its kind."""
    function = REQUESTS[request.pop("do")]
    try:
        # Wait for DVC's lock, which another stage holds for a moment to commit.
        with Repo(_wait_for_lock=True) as repo:
            repo.scm_context.quiet = True  # no advice on `git add` after each stage
            return {"result": function(repo, **request) or {}}
    except Exception as error:
        return {"failure": failure(error)}


def failure(error: Exception) -> dict[str, Any]:
    """Return the error as text, and whether another try may succeed."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, StageCmdFailedError):
            return {"kind": "command", "message": str(cause)}
    # DVC's own messages are meant for people; their causes are often a bare errno.
    own = [e for e in chain if isinstance(e, DvcException) and not isinstance(e, ReproductionError)]
    # But the outermost error has the place in dvc.yaml that is wrong.
    placed = [e for e in own if isinstance(e, ResolveError)]
    cause = [*chain[-1:], *own[-1:], *placed[:1]][-1]
    words = " ".join(str(cause).split()) or type(cause).__name__
    passing = any(_may_pass(cause) for cause in chain)
    return {"kind": "passing" if passing else "dvc", "message": words}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden


def _may_pass(error: BaseException) -> bool:
    # Clients of remotes raise their own classes, which are recognised by package.
    client = type(error).__module__.partition(".")[0] in {"aiohttp", "botocore", "requests"}
    passing = (LockError, FileTransferError, ConnectionError, TimeoutError, socket.gaierror)
    return client or isinstance(error, passing)


def main(
    token: str,
    grace: float,
    *patches: AbstractContextManager[None],
    forks: AbstractContextManager[Callable[[Path, list[str]], None]] | None = None,
) -> None:
    """Handle requests until stdin ends; a stage that runs then has `grace` seconds to stop.

    With `forks`, the code of the stages is imported as soon as a plan has a stage that will run.
    """
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    # The stage must not read the requests: it gets an empty stdin, as from a scheduler.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # A handler (not SIG_IGN, which the stage would inherit) lets this process outlive the
    # SIGTERM to its group, so that DVC notices the stage's end and releases its locks.
    signal.signal(signal.SIGTERM, lambda *_: None)
    logging.getLogger("dvc").setLevel(logging.INFO)
    ui.enable()
    waiting: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, waiting, grace), daemon=True).start()
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        begin = stack.enter_context(forks) if forks else None
        while request := waiting.get():
            reply = answer(json.loads(request))
            # If nobody reads any more, `_listen` is about to end this process. A failure here would
            # leave processes of the stage alive, and those that ignore SIGTERM.
            with contextlib.suppress(BrokenPipeError):
                print(f"{token}{json.dumps(reply)}", flush=True)
            waiting.task_done()
            stages = reply.get("result", {}).get("stages", [])  # of a plan
            commands = [str(stage["command"]) for stage in stages if stage["changed"]]
            if begin and commands:
                begin(Path.cwd(), commands)
    os._exit(0)


def _listen(requests: TextIO, waiting: "queue.Queue[str | None]", grace: float) -> None:
    for line in requests:
        waiting.put(line)
    if not waiting.unfinished_tasks:
        waiting.put(None)
        return
    deadline = time.monotonic() + grace
    while waiting.unfinished_tasks and time.monotonic() < deadline:
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)  # all that ignored SIGTERM, and this process


def _beside(name: str) -> Any:
    """Return a module of this folder, which is no package here."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None  # noqa: S101 (the file exists)
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    forks = _beside("forked").forked() if len(sys.argv) > 3 else None
    once = _beside("once")
    main(sys.argv[1], float(sys.argv[2]), once.look_once(), once.parse_once(), forks=forks)
