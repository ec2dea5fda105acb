"""Predict the files of a growing folder, as a Prefect flow."""

import argparse
import os
import sys
from pathlib import Path

from pipeline.core import command

from . import access, server
from .dvc.project import working_copy

ANSWERS = Path("reports/answers.jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flow's paths, and the options of a server."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=Path, default=ANSWERS, help=f"default: {ANSWERS}")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="go on, with a server")
    server.add_arguments(parser)


def run(every: float | None, host: str, port: int, name: list[str], **paths: Path) -> None:
    """Run the flow once, or at an interval until interrupted; exit with 1 if it failed."""
    where = {path: paths[path].absolute() for path in paths}
    sys.exit(0 if ask(where, every, host, port, name) else 1)


def ask(
    where: dict[str, Path],
    every: float | None,
    host: str,
    port: int,
    names: list[str] | None = None,
) -> bool:
    """Run the flow over the three paths, once or every `every` seconds; return True on success.

    Raises:
        RunError: a server is needed and this is not a DVC repository, or the server does not start
            or refuses the password.
    """
    os.environ |= server.QUIET
    if every is None:
        # Imported only now, because Prefect reads its settings at import.
        from .growing import predict

        server.stop_without_database()
        with access.admitted():
            return bool(predict(**where, return_state=True).is_completed())
    with server.running(working_copy(), host, port, names) as api:
        os.environ["PREFECT_API_URL"] = api
        from prefect.types.entrypoint import EntrypointType

        from .growing import predict

        parameters = {name: str(path) for name, path in where.items()}
        with access.admitted():
            predict.serve(
                "predict",
                interval=every,
                parameters=parameters,
                limit=1,
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
    return True


if __name__ == "__main__":
    command.run_module(f"{__package__}.predict", __doc__, add_arguments, run, has_colours=True)
