"""Predict the pictures of a growing folder: `python -m flows.predict BUNDLE FOLDER`."""

import argparse
import os
import sys
from pathlib import Path

from flows import access, server
from flows.dvc.project import working_copy
from pipeline.core import command

ANSWERS = Path("reports/answers.jsonl")


def main() -> None:
    """Run the flow once, or at an interval until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.predict", description=__doc__, parents=[command.debug_option()]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=Path, default=ANSWERS, help=f"default: {ANSWERS}")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="go on, with a server")
    server.add_arguments(parser)
    asked = parser.parse_args()
    where = {name: getattr(asked, name).absolute() for name in ("bundle", "folder", "answers")}

    def run() -> None:
        done = ask(where, asked.every, asked.host, asked.port, asked.name)
        sys.exit(0 if done else 1)

    command.run(run, takes_arguments=True, has_colours=True)


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
        from flows.growing import predict

        with access.admitted():
            return bool(predict(**where, return_state=True).is_completed())
    with server.running(working_copy(), host, port, names) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.growing import predict

        parameters = {name: str(path) for name, path in where.items()}
        with access.admitted():
            predict.serve("predict", interval=every, parameters=parameters, limit=1)
    return True


if __name__ == "__main__":
    main()
