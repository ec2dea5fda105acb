"""Start a run when the data has changed: `python -m flows.watch`.

A look costs a walk over the files' names, sizes and times, and for data imported from elsewhere
(`dvc import-url`, `dvc import`) a question to where it came from. No flow run is made for it.
"""

import argparse
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.claim import at_work
from flows.stages import MayPassError, Pool, StageError, working_copy

DEPLOYMENT = "headstart/on-change"
DATA = Path("data/raw")
SECONDS_BETWEEN_LOOKS = 30.0


class Watch:
    """Looks at data in the working copy `root`, and remembers what it has told of."""

    def __init__(self, root: Path, data: list[Path], pool: Pool) -> None:
        """Get ready; `pool` is in `root`, and `data` are files or folders in it."""
        self._root, self._data, self._pool = root, data, pool
        self._noted = root / ".headstart" / "data-seen"
        self._last: str | None = None

    def changed(self) -> bool:
        """Whether there is new data for a run; told once, and not while a run is at work.

        Data has to come to rest first: two looks see the same. Whether a difference is one that
        matters, or a run that somebody made has dealt with it, is DVC's to say. The first look
        ever in a working copy only takes note.
        """
        if at_work(self._root):
            return False
        files = [line for path in self._data for line in signature(self._root / path)]
        imported = any(".dvc " in line for line in files)
        newer = self._pool.ask("outdated")["imports"] if imported else []
        now = hashlib.sha256("\n".join([*files, *newer]).encode(errors="replace")).hexdigest()
        rested, self._last = now == self._last, now
        noted = self._noted.read_text() if self._noted.exists() else None
        if now == noted or (noted and not rested):
            return False
        plan = self._pool.ask("plan", targets=[], force=False)["stages"] if noted else []
        self._noted.parent.mkdir(exist_ok=True)
        self._noted.write_text(now)
        return bool(noted and (newer or any(stage["changed"] for stage in plan)))


def signature(path: Path) -> Iterator[str]:
    """A line for each file at or under `path`: its name, size and time of change.

    A `.dvc` file, which runs write too, is known by its content instead.
    """
    if path.is_dir():
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                yield from signature(Path(entry.path))
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
                if looking.changed():
                    start_run()
            except (MayPassError, StageError) as error:  # the source does not answer: look again
                print(f"flows.watch: could not look: {error}", flush=True)


def start_run() -> None:
    """Start a run of the deployment `on-change`, and do not wait for it."""
    from prefect.deployments import run_deployment

    run_deployment(DEPLOYMENT, timeout=0)
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
    parser = argparse.ArgumentParser(prog="python -m flows.watch", description=__doc__)
    add_arguments(parser)
    asked = parser.parse_args()
    watch(working_copy(), asked.look_at, asked.look_every, start_run, threading.Event())


if __name__ == "__main__":
    main()
