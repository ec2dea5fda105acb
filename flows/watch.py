"""Start a run when the data has changed: `python -m flows.watch`.

Each check reads only the names, sizes and times of the files. For data imported from elsewhere
(`dvc import-url`, `dvc import`) it also asks the source for changes. A check is not a flow run.
"""

import argparse
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from flows import access, server
from flows.dvc.claim import at_work
from flows.dvc.pool import Pool
from flows.dvc.project import working_copy
from pipeline.core import command
from pipeline.core.errors import MayPassError, StageError

DEPLOYMENT = "headstart/on-change"
DATA = Path("data/raw")
SEEN = Path(".headstart/data-seen")  # what was reported last
SECONDS_BETWEEN_LOOKS = 30.0


class Watch:
    """Looks at data in the working copy `root`, and remembers what it has reported."""

    def __init__(self, root: Path, data: list[Path], pool: Pool) -> None:
        """Get ready; `pool` is in `root`, and `data` are files or folders in it."""
        self._root, self._data, self._pool = root, data, pool
        self._noted = root / SEEN
        self._last: str | None = None

    def look(self, start_run: Callable[[], None]) -> None:
        """Call `start_run` where there is new data for a run, unless one is at work: once.

        Data has to come to rest first: two looks see the same. Whether a difference is one that
        matters, or a run that somebody made has dealt with it, is DVC's to say. It is asked about
        what the first looks ever in a working copy see, too: that may have changed since the last
        run, or a moment ago. If `start_run` fails, the next look tries again.
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
    """A hash of all that a check saw."""
    return hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()


def signature(path: Path, above: tuple[Path, ...] = ()) -> Iterator[str]:
    """A line for each file at or under `path`: its name, size and time of change.

    A `.dvc` file, which runs write too, is known by its content instead. Links to folders are
    followed, but none that leads back to a folder `above`.
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
    """Look every `every` seconds, and call `start_run` once for each change, until `end`."""
    with Pool(root) as pool:
        looking = Watch(root, data, pool)
        while not end.wait(every):
            try:
                looking.look(start_run)
            # The source does not answer, say, or a folder cannot be listed.
            except (MayPassError, StageError, OSError) as error:
                print(f"flows.watch: {error}; looking again", flush=True)


def start_run() -> None:
    """Start a run of the deployment `on-change`, and do not wait for it.

    Raises:
        MayPassError: the server does not answer or let us in, or has no such deployment yet.
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
    print(f"flows.watch: the data has changed; started {DEPLOYMENT}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at and how often, for the commands that look."""
    parser.add_argument(
        "--look-at", nargs="*", type=Path, default=[DATA], metavar="PATH", help=f"default: {DATA}"
    )
    parser.add_argument(
        "--look-every", type=float, default=SECONDS_BETWEEN_LOOKS, metavar="SECONDS"
    )


def main() -> None:
    """Look until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.watch", description=__doc__, parents=[command.debug_option()]
    )
    add_arguments(parser)
    asked = parser.parse_args()

    def look() -> None:
        root = working_copy()
        os.environ |= server.QUIET
        if api := server.find(root):
            os.environ["PREFECT_API_URL"] = api
        with access.admitted():  # what cannot start a run need not look
            watch(root, asked.look_at, asked.look_every, start_run, threading.Event())

    command.run(look, takes_arguments=True)


if __name__ == "__main__":
    main()
