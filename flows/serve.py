"""Run the deployments of prefect.yaml on their schedules: `headstart schedule`."""

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.core import command, lock
from pipeline.core.errors import BusyError, ParamsError

from . import access, server, watch
from .dvc.project import working_copy

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

SERVED = Path(".dvc/tmp/headstart.schedule")  # the ID of the process that serves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server and of the watch."""
    server.add_arguments(parser)
    watch.add_arguments(parser)


def run(
    host: str, port: int, look_at: list[Path], look_every: float, name: list[str] | None = None
) -> None:
    """Serve the deployments and watch the data, until interrupted; start a server if none answers.

    Raises:
        BusyError: another process serves the deployments of this working copy.
        LockError: the project was made with different code or libraries than are installed.
        ParamsError: `prefect.yaml` has a mistake.
        RunError: this is not a DVC repository, or a server does not start or refuses the password.
    """
    root = working_copy()
    lock.check(root)
    with ExitStack() as stack:
        stack.enter_context(alone(root))
        api = stack.enter_context(server.running(root, host, port, name))
        os.environ |= server.QUIET | {"PREFECT_API_URL": api}
        stack.enter_context(access.admitted())
        found = deployments(root / "prefect.yaml")
        end = threading.Event()
        stack.callback(end.set)
        looking = threading.Thread(
            target=watch.watch,
            args=(root, look_at, look_every, watch.start_run, end),
            daemon=True,
        )
        looking.start()
        see = access.let_in(api) or api.removesuffix("/api")
        print(f"serving {', '.join(d.name for d in found)}; see {see}", flush=True)
        asyncio.run(serve(found))


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Refuse a second process that serves the deployments of `root`: each run would start twice."""
    file = root / SERVED
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            raise BusyError(
                f"process {held.read()} runs `headstart schedule` in {root} already: stop it first"
            ) from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield


async def serve(found: "list[RunnerDeployment]") -> None:
    """Run these deployments on schedule until Ctrl-C or SIGTERM, then cancel running flows.

    `prefect.serve` cancels nothing (Prefect 3.8.8). After Ctrl-C its runs crash with a traceback,
    because a terminal sends the signal to them too. After SIGTERM they stay Running for ever.
    """
    from prefect.logging.handlers import APILogWorker
    from prefect.runner import Runner

    # The runner pauses the schedules when it ends, so that missed nights are not run all at once.
    runner = Runner(pause_on_shutdown=True)
    for one in found:
        await runner.aadd_deployment(one)
    asked, loop = asyncio.Event(), asyncio.get_running_loop()

    def hear() -> None:
        signal.sigwait({signal.SIGINT})
        loop.call_soon_threadsafe(asked.set)

    # This thread blocks Ctrl-C, and the runs inherit that, so the signal does not reach them. A
    # thread that waits, or one started earlier, receives it, and Python calls our handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=hear, daemon=True).start()
    serving = asyncio.create_task(runner.start())
    ending = asyncio.create_task(asked.wait())
    await asyncio.sleep(0)  # from here on the runner handles SIGTERM itself
    for end in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(end, asked.set)
    await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
    if asked.is_set() and not serving.done():
        print("interrupted; running flows are cancelled", flush=True)
        if runner.started:
            await runner.astop()
        else:
            serving.cancel()
    ending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    # The server may end right after this.
    await asyncio.to_thread(APILogWorker.drain_all, timeout=10, at_exit=False)


def deployments(declared: Path) -> "list[RunnerDeployment]":
    """Return the deployments of prefect.yaml, to be run by this process.

    Raises:
        ParamsError: the file is not YAML, or has a deployment or schedule that cannot be.
    """
    from prefect.schedules import Schedule
    from prefect.types.entrypoint import EntrypointType

    from .headstart import headstart

    to_deployment: Any = headstart.to_deployment  # typed as if it were async only
    try:
        content: dict[str, Any] = yaml.safe_load(declared.read_text(encoding="utf-8"))
        return [
            to_deployment(
                name=one["name"],
                description=one.get("description"),
                parameters=one.get("parameters"),
                # A run imports the flow by its name: the file may lie in an installed package.
                entrypoint_type=EntrypointType.MODULE_PATH,
                # The key has no value if all schedules below it are commented out.
                schedules=[Schedule(**schedule) for schedule in one.get("schedules") or []],
            )
            for one in content["deployments"]
        ]
    except (yaml.YAMLError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ParamsError(f"{declared} cannot be used ({reason}): correct it") from None


if __name__ == "__main__":
    command.run_module(f"{__package__}.serve", __doc__, add_arguments, run, has_colours=True)
