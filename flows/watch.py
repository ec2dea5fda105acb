"""Start a run when the data has changed, as `headstart schedule` does.

Each check reads only the names, sizes and times of the files. For data imported from elsewhere
(`dvc import-url`, `dvc import`) it also asks the source for changes. A check is not a flow run.
"""

import argparse
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.core import command
from pipeline.core.errors import MayPassError, StageError
from pipeline.core.paths import CORRECTIONS

from . import access, server
from .dvc.claim import at_work
from .dvc.pool import Pool
from .dvc.project import working_copy

DEPLOYMENT = "headstart/on-change"
DATA = [Path("data/raw"), CORRECTIONS]
SEEN = Path(".headstart/data-seen")  # the hash at the last report
SECONDS_BETWEEN_LOOKS = 30.0


class Watch:
    """Watches data in the working copy `root`, and remembers the state that it last reported."""

    def __init__(self, root: Path, data: list[Path], pool: Pool) -> None:
        """Prepare to watch `data`, files or folders in `root`; `pool` is in `root` too."""
        self._root, self._data, self._pool = root, data, pool
        self._noted = root / SEEN
        self._last: str | None = None

    def look(self, start_run: Callable[[], None]) -> None:
        """Call `start_run` once if there is new data for a run, unless a run is in progress.

        The data must not be changing: two successive checks have to find the same. DVC then decides
        whether the difference matters, or whether a manual run has already handled it. The first
        state found in a working copy is also checked with DVC: it may have changed since the last
        run, or a moment ago. If `start_run` fails, the next check tries again.
        """
        if at_work(self._root):
            return
        files = [line for path in self._data for line in signature(self._root / path)]
        imported = any(".dvc " in line for line in files)
        newer = self._pool.ask("outdated")["imports"] if imported else []
        now = digest([*files, *newer])
        rested, self._last = now == self._last, now
        noted = self._noted.read_text() if self._noted.exists() else None
        if now == noted or not rested:
            return
        plan = self._pool.ask("plan", targets=[], force=False)["stages"]
        if newer or any(stage["changed"] for stage in plan):
            start_run()
        self._noted.parent.mkdir(exist_ok=True)
        self._noted.write_text(now)


def digest(lines: list[str]) -> str:
    """Return a hash of the lines of a check."""
    return hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()


def signature(path: Path, above: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yield a line for each file at or under `path`: its name, size and modification time.

    For a `.dvc` file, the content is used instead, because runs write such files too. Links to
    folders are followed, except those that lead back to a folder `above`.
    """
    if path.is_dir():
        here = path.resolve()
        if here in above:
            return
        with os.scandir(path) as entries:
            inside = sorted(Path(entry.path) for entry in entries)
        for one in inside:
            yield from signature(one, (*above, here))
    elif path.suffix == ".dvc":
        yield f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    elif path.exists():
        stat = path.stat()
        yield f"{path} {stat.st_size} {stat.st_mtime_ns}"


def watch(
    root: Path, data: list[Path], every: float, start_run: Callable[[], None], end: threading.Event
) -> None:
    """Check every `every` seconds until `end`, and call `start_run` once for each change."""
    with Pool(root) as pool:
        looking = Watch(root, data, pool)
        while not end.wait(every):
            try:
                looking.look(start_run)
            # For example, the source does not answer, or a folder cannot be listed.
            except (MayPassError, StageError, OSError) as error:
                print(f"watch: {error}; looking again", flush=True)


def start_run() -> None:
    """Start a run of the deployment `on-change`, without waiting for it.

    Raises:
        MayPassError: the server does not answer, refuses the password, or has no such deployment
            yet.
    """
    import httpx
    from prefect.deployments import run_deployment
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL

    try:
        run_deployment(DEPLOYMENT, timeout=0)
    except (httpx.HTTPError, PrefectException) as error:
        api = PREFECT_API_URL.value()
        refused = access.refusal(api) if api else None
        reason = refused or " ".join(str(error).split()) or type(error).__name__
        raise MayPassError(f"{DEPLOYMENT} was not started: {reason}") from None
    print(f"watch: the data has changed; started {DEPLOYMENT}", flush=True)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= threading.TIMEOUT_MAX:  # not for nan
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} should be a number of seconds above 0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which data to watch, and how often."""
    parser.add_argument(
        "--look-at",
        nargs="*",
        type=Path,
        default=DATA,
        metavar="PATH",
        help=f"paths to watch for changes (default: {DATA[0]} {DATA[1]})",
    )
    parser.add_argument(
        "--look-every",
        type=_seconds,
        default=SECONDS_BETWEEN_LOOKS,
        metavar="SECONDS",
        help=f"time between two checks of the data (default: {SECONDS_BETWEEN_LOOKS})",
    )


def run(look_at: list[Path], look_every: float) -> None:
    """Watch the data until interrupted.

    Raises:
        RunError: this is not a DVC repository, or the server refuses the password.
    """
    root = working_copy()
    os.environ |= server.QUIET
    if api := server.find(root):
        os.environ["PREFECT_API_URL"] = api
    with access.admitted():  # without access no run could be started
        watch(root, look_at, look_every, start_run, threading.Event())


if __name__ == "__main__":
    command.run_module(f"{__package__}.watch", __doc__, add_arguments, run)
