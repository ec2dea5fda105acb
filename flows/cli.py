"""The command `headstart`.

Each subcommand imports what it needs when it is called: `predict` and `serve` neither DVC nor
Prefect nor PyTorch.
"""

import argparse
import gc
from pathlib import Path

from pipeline.core import command
from pipeline.serving import predict as answers


def main() -> None:
    """Run the subcommand named on the command line."""
    either = [command.debug_option()]  # before the subcommand or behind it
    parser = argparse.ArgumentParser(
        prog="headstart", description="Train an image classifier from few pictures.", parents=either
    )
    subcommands = parser.add_subparsers(dest="subcommand", required=True)
    subcommands.add_parser("why", help="Show what dvc repro would run, and why.", parents=either)
    subcommands.add_parser("check", help="Check params.yaml before a run.", parents=either)
    asking = subcommands.add_parser(
        "predict", help="Predict the classes of examples with a trained bundle.", parents=either
    )
    answers.add_arguments(asking)
    # What is not given is left to `serve.run`.
    serving = subcommands.add_parser(
        "serve",
        help="Serve predictions of a trained bundle over HTTP.",
        argument_default=argparse.SUPPRESS,
        parents=either,
    )
    serving.add_argument("bundle", type=Path, help="Folder that the bundle stage wrote.")
    serving.add_argument(
        "--host",
        help="Address to listen on (default: 127.0.0.1, this machine only).",
    )
    serving.add_argument("--port", type=int, help="Port to listen on (default: 8000).")
    serving.add_argument(
        "--megabytes", type=float, help="Largest request in megabytes (default: 20)."
    )
    serving.add_argument(
        "--waiting",
        type=int,
        help="Largest number of requests in the queue (default: 128).",
    )
    serving.add_argument(
        "--seconds",
        type=float,
        help="Seconds from a request's arrival to its answer (default: 30).",
    )
    asked = vars(parser.parse_args())
    subcommand = asked.pop("subcommand")
    asked.pop("debug", None)

    def predict() -> None:
        answers.run(**asked)

    def serve() -> None:
        from pipeline.serving import server  # imports FastAPI, which takes a while

        server.run(**asked)

    run = {"why": why, "check": check, "predict": predict, "serve": serve}[subcommand]
    command.run(run, takes_arguments=True)


def why() -> None:
    """Print what `dvc repro` would run, because of what, and how many views that costs."""
    from flows import why as answer  # imports DVC, which takes a while

    # Of 100,000 pictures millions of objects are made that all stay: to look for cycles among them
    # would take a third of the time.
    gc.disable()
    print("\n".join(answer.why()))


def check() -> None:
    """See that `params.yaml` and git agree with `dvc.yaml`."""
    from flows.dvc.project import check_project, working_copy

    check_project(working_copy())


if __name__ == "__main__":
    main()
