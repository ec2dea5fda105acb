"""The command `headstart`."""

import argparse

from pipeline import command


def main() -> None:
    """Run the subcommand named on the command line."""
    parser = argparse.ArgumentParser(prog="headstart", description="A picture classifier's kit.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subcommands = parser.add_subparsers(dest="subcommand", required=True)
    subcommands.add_parser("why", help="what dvc repro would run, and because of what")
    parser.parse_args()
    command.run(why)


def why() -> None:
    """Print what `dvc repro` would run, because of what, and how many views that costs."""
    from flows import why as answer  # imports DVC, which takes a while

    print("\n".join(answer.why()))


if __name__ == "__main__":
    main()
