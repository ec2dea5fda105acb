"""Ask about the pictures of a growing folder: `python -m flows.predict BUNDLE FOLDER`."""

import argparse
import os
import sys
from pathlib import Path

from flows import server
from flows.stages import working_copy

ANSWERS = Path("reports/answers.jsonl")


def main() -> int:
    """Run the flow once, or again every so many seconds until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m flows.predict", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=Path, default=ANSWERS, help=f"default: {ANSWERS}")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="go on, with a server")
    server.add_arguments(parser)
    asked = parser.parse_args()
    where = {name: getattr(asked, name).absolute() for name in ("bundle", "folder", "answers")}
    os.environ |= server.QUIET
    if asked.every is None:
        # Only now, for Prefect reads its settings when it is imported.
        from flows.growing import predict

        return 0 if predict(**where, return_state=True).is_completed() else 1
    with server.running(working_copy(), asked.host, asked.port) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.growing import predict

        parameters = {name: str(path) for name, path in where.items()}
        predict.serve("predict", interval=asked.every, parameters=parameters, limit=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
