"""`headstart why`: which stages `dvc repro` would run and why, and how many views are new.

The command only reads. DVC decides which files changed. The pipeline's own functions work out what
this means for single examples, from the existing manifest and the changed files.
"""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from dvc.dependency import Dependency
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage import Stage as DvcStage
from dvc_data.hashfile.build import build
from dvc_data.hashfile.obj import HashFile
from dvc_data.hashfile.tree import Tree

from pipeline import kinds
from pipeline.backbones import engines
from pipeline.core import lock, params
from pipeline.core.errors import RefusedError, RunError
from pipeline.core.params import Params
from pipeline.core.paths import CONFIRMED, CORRECTIONS, LOCK, MANIFEST, PLAN, REFUSED
from pipeline.examples import files, rows
from pipeline.kinds import Kind
from pipeline.runners.wanted import every_view
from pipeline.sources.checked import Checked, drop_repeats
from pipeline.sources.corrected import corrected
from pipeline.sources.folder import folder as folder_listing
from pipeline.sources.splits import split, unlabelled
from pipeline.sources.table import LABEL, Wanted
from pipeline.sources.table import table as table_listing
from pipeline.sources.targets import targeted
from pipeline.store.database import features_file
from pipeline.store.places import default_address, default_folder
from pipeline.store.vectors import open_store
from pipeline.tables import confirmed as confirmations
from pipeline.tables import corrections

NAMED = 3  # examples that the text lists by name; the rest are counted
Runs = Literal["yes", "maybe", "no"]


class Folder(NamedTuple):
    """The examples' folder as a dependency, and its current state in DVC."""

    dep: Dependency
    now: HashFile


@dataclass(frozen=True)
class Parameter:
    """A changed parameter of a stage: its value in `dvc.lock` and its current value.

    A missing value is `absent`; others are anything that YAML can represent.
    """

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name} {self.old} → {self.new}"


@dataclass(frozen=True)
class Stage:
    """Whether a stage would run, and why; `maybe` if this depends on the stages in `after`."""

    name: str
    runs: Runs
    reasons: tuple[str, ...]  # what changed besides parameters, such as `data/raw modified`
    parameters: tuple[Parameter, ...]
    after: tuple[str, ...]  # stages above that would run, or may


@dataclass(frozen=True)
class Change:
    """A changed example: its current path, and its old and new path, label or split.

    `by` is the file of corrections that changed it, empty if the source itself did.
    """

    path: str
    old: str
    new: str
    by: str = ""


@dataclass(frozen=True)
class Examples:
    """All examples that differ from the examples of the last `ingest`."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[Change, ...] = ()
    relabelled: tuple[Change, ...] = ()
    resplit: tuple[Change, ...] = ()
    excluded: tuple[Change, ...] = ()  # by corrections; `new` is empty
    confirmed: tuple[str, ...] = ()  # a new correction says that the label is right
    unconfirmed: tuple[str, ...] = ()  # no correction says so any more


class Coming(NamedTuple):
    """What `ingest` would write, as far as it is known without decoding examples.

    `by` has the file of corrections that changes an example, by digest; `confirmed` digests and
    labels.
    """

    manifest: pd.DataFrame
    by: dict[str, str]
    confirmed: confirmations.Confirmed


@dataclass(frozen=True)
class Views:
    """The views that `extract` would look up, counted once for each network of the backbone.

    `computed` and `reused` are None until the backbone is loaded.
    """

    total: int
    computed: int | None
    reused: int | None


@dataclass(frozen=True)
class Answer:
    """What a run would do; `docs/why.schema.json` describes it as JSON.

    `examples` is None if the examples are not known before `ingest` has run. `views` is None for
    the same reason, or if `extract` would not run.
    """

    kind: str
    stages: tuple[Stage, ...]  # in the order of the graph
    examples: Examples | None
    views: Views | None


def why() -> Answer:
    """Return what a run would do.

    Raises:
        HeadstartError: `params.yaml`, `dvc.yaml` or `headstart.lock` is wrong, this is not a DVC
            repository, or the examples cannot be listed.
    """
    lock.check()
    settings = params.load(kinds.schema)
    try:
        return _why(settings)
    except DvcException as error:
        raise RunError(f"DVC: {' '.join(str(error).split())}") from error


def _why(settings: Params) -> Answer:
    kind = kinds.named(kinds.declared(settings.ingest))
    stages: list[Stage] = []
    running: set[str] = set()
    touched: set[str] | None = set()
    with Repo() as repo:
        graph = get_active_graph(repo.index.graph)
        for stage in plan_repro(graph):
            if not stage.cmd:  # a `.dvc` file
                continue
            folder = example_folder(stage, settings) if stage.name == "ingest" else None
            reasons, parameters = own_reasons(stage, folder)
            above = [up.name for up in graph.successors(stage) if up.cmd]
            after = tuple(name for name in above if name in running)
            runs: Runs = "yes" if reasons or parameters else "maybe" if after else "no"
            stages.append(Stage(stage.name, runs, tuple(reasons), tuple(parameters), after))
            if runs != "no":
                running.add(stage.name)
            if stage.name == "ingest" and runs == "yes":
                touched = touched_files(folder)

    manifest = pd.read_parquet(MANIFEST) if MANIFEST.exists() else None
    examples: Examples | None = Examples()
    if "ingest" in running:
        coming = None if touched is None else coming_manifest(settings, manifest, touched, kind)
        examples = None if manifest is None or coming is None else example_changes(manifest, coming)
        manifest = coming.manifest if coming else None
    views = None
    if manifest is not None and "extract" in running:
        planned = None if {"ingest", "augment"} & running else pd.read_parquet(PLAN)
        views = views_to_compute(settings, manifest, planned, kind)
    return Answer(settings.ingest.kind, tuple(stages), examples, views)


def in_json(answer: Answer) -> str:
    """Return the answer as JSON."""
    return json.dumps(asdict(answer), indent=2, default=str)  # YAML has dates


def in_words(answer: Answer) -> list[str]:
    """Return the answer for people: a line for each stage, and one on views."""
    lines = []
    for stage in answer.stages:
        words = [*stage.reasons, *map(str, stage.parameters)]
        if stage.name == "ingest" and answer.examples:
            words += _examples_in_words(answer.examples, kinds.named(answer.kind))
        if stage.runs == "yes":
            lines.append(f"{stage.name}: would run: {'; '.join(words)}")
        elif stage.runs == "maybe":
            above = " or ".join(stage.after)
            lines.append(f"{stage.name}: runs if the output of {above} changes")
        else:
            lines.append(f"{stage.name}: up to date")
        if stage.name == "extract" and stage.runs != "no":
            lines.append(f"  {_views_in_words(answer.views)}")
    return lines


def _examples_in_words(examples: Examples, kind: Kind) -> list[str]:
    groups: dict[str, Sequence[str]] = {
        "added": examples.added,
        "changed": examples.changed,
        "removed": examples.removed,
        "renamed": [one.path for one in examples.renamed],
        "relabelled": list(map(_in_words, examples.relabelled)),
        "in another split": list(map(_in_words, examples.resplit)),
        "excluded": [f"{one.path} ({one.by})" for one in examples.excluded],
        "confirmed": examples.confirmed,
        "not confirmed any more": examples.unconfirmed,
    }
    return [_named(change, paths, kind) for change, paths in groups.items() if paths]


def _in_words(one: Change) -> str:
    return f"{one.path} ({one.old} → {one.new}{', ' * bool(one.by)}{one.by})"


def _named(change: str, paths: Sequence[str], kind: Kind) -> str:
    more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
    noun = kind.noun if len(paths) == 1 else kind.nouns
    return f"{len(paths):,} {noun} {change}: {', '.join(paths[:NAMED])}{more}"


def _views_in_words(views: Views | None) -> str:
    if views is None:
        return "the number of views is not known until ingest has run"
    if views.computed is None:
        return f"{views.total:,} views; how many are computed is known once the backbone is loaded"
    return f"{views.computed:,} views would be computed, {views.reused:,} reused"


def stop_if_stale(stage: str) -> None:
    """Check that a stage and those before it are up to date.

    Raises:
        RunError: a stage is out of date, or DVC cannot read the project.
    """
    settings = params.load(kinds.schema)
    try:
        with Repo() as repo:
            graph = get_active_graph(repo.index.graph)
            for one in plan_repro(graph, [repo.stage.get_target(stage)]):
                if not one.cmd:
                    continue
                folder = example_folder(one, settings) if one.name == "ingest" else None
                reasons, parameters = own_reasons(one, folder)
                for change in (*reasons, *parameters):
                    raise RunError(
                        f"{one.name} is out of date ({change}): run `headstart repro` first"
                    )
    except DvcException as error:
        raise RunError(f"DVC: {' '.join(str(error).split())}") from error


def example_folder(stage: DvcStage, settings: Params) -> Folder | None:
    """Return the folder that `ingest` reads; None if it is missing or has never been read."""
    path = settings.ingest.path
    for dep in stage.deps:
        if dep.def_path == path and dep.hash_info and dep.exists:
            _, _, now = build(
                dep.local_cache,
                dep.fs_path,
                dep.fs,
                dep.hash_name,
                ignore=dep.dvcignore,
                dry_run=True,
            )
            return Folder(dep, now)
    return None


def own_reasons(stage: DvcStage, folder: Folder | None) -> tuple[list[str], list[Parameter]]:
    """Return the differences of a stage from `dvc.lock`, and its changed parameters separately.

    If the stage reads `folder`, DVC need not list it again, which takes seconds for 100,000 files.
    """
    if not any(out.hash_info for out in stage.outs):
        return ["it has never run here"], []
    reasons = ["its command changed"] if stage.cmd_changed else []
    parameters: list[Parameter] = []
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            changes = changed_parameters(dep)
            if dep.def_path == LOCK.name:
                reasons += lock.in_words((one.name, one.old, one.new) for one in changes)
            else:
                parameters += changes
        elif folder and dep is folder.dep:
            reasons += [f"{dep} modified"] if folder.now.hash_info != dep.hash_info else []
        else:
            reasons += [f"{path} {status}" for path, status in dep.workspace_status().items()]
    for out in stage.outs:
        reasons += [f"{path} {status}" for path, status in out.workspace_status().items()]
    return reasons, parameters


def changed_parameters(dep: ParamsDependency) -> list[Parameter]:
    """Return the values of a parameters file that differ from `dvc.lock`."""
    old = _flat(dep.hash_info.value or {})
    new = _flat(dep.read_params(flatten=False))
    return [
        Parameter(key, old.get(key, "absent"), new.get(key, "absent"))
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def touched_files(folder: Folder | None) -> set[str] | None:
    """Return the paths of the files in the examples' folder that are new or changed.

    Return None if DVC does not have the list of the earlier files.
    """
    if folder is None:
        return None
    # DVC keeps a slash at the end, or `./`; the manifest has neither.
    path = Path(folder.dep.def_path).as_posix()
    if not isinstance(folder.now, Tree) and Path(path).is_file():
        return {path}  # a table that holds the examples
    before = folder.dep.get_obj()
    if not (isinstance(before, Tree) and isinstance(folder.now, Tree)):
        return None
    old = {key: info.value for key, _, info in before}
    return {"/".join((path, *key)) for key, _, info in folder.now if old.get(key) != info.value}


def coming_manifest(
    settings: Params, manifest: pd.DataFrame | None, touched: set[str], kind: Kind
) -> Coming | None:
    """Return what ingest would write.

    Return None if the source makes its examples, or if ingest has never run. Only touched files are
    read. A file that was refused before and has not changed is assumed to be refused again, unless
    corrections had excluded it or could decide which of its labels is right.

    Raises:
        DataError: a file of corrections is damaged.
    """
    source = settings.ingest.source
    if manifest is None or source not in ("folder", "csv", "parquet"):
        return None
    wanted = Wanted.by(settings.ingest)
    if kind.rows and wanted.dialect != LABEL.dialect:  # ingest writes a UTF-8 copy of the table
        return None
    known = dict(zip(manifest["path"], manifest["digest"], strict=True))
    written = corrections.read_all(corrections.files_in(CORRECTIONS)[0])
    again = refused_by_corrections(kind)
    root = Path(settings.ingest.path)
    passed = []
    with contextlib.redirect_stdout(io.StringIO()):  # discard the lines that ingest prints
        if source == "folder":
            listed = folder_listing(root)
        else:
            listed = table_listing(root, source, kind, wanted)
        for found in targeted(listed, settings.ingest).found:
            path = found.path.as_posix()
            digest = known.get(path)
            with contextlib.suppress(RefusedError):
                if path in again or touched & in_files(found.path):
                    digest = files.digest(files.load(found.path, kind.most_bytes))
            if digest:
                passed.append(Checked(found, digest, tuple(None for _ in kind.columns)))
        mended = corrected(passed, written, settings.ingest)
        kept, _ = drop_repeats(mended.examples, kind)
        labelled, _ = unlabelled(kept)
        after = split(labelled, settings.ingest, kind, listed.columns)
    by = {digest: file.as_posix() for digest, file in mended.by.items()}
    return Coming(after, by, mended.confirmed)


def refused_by_corrections(kind: Kind) -> set[str]:
    """Return the paths of refused examples that other corrections might accept."""
    if not REFUSED.exists():
        return set()
    refused = pd.read_csv(REFUSED, dtype=str, keep_default_na=False)
    reasons = (f"excluded by {CORRECTIONS}/", f"the same {kind.noun} has the labels ")
    return set(refused.loc[refused["reason"].str.startswith(reasons), "path"])


def in_files(example: Path) -> set[str]:
    """Return the files that hold the example: one, or a table and the matrix beside it."""
    table = rows.parted(example)
    if table is None:
        return {example.as_posix()}
    return {table[0].as_posix(), table[0].with_name(rows.MATRIX).as_posix()}


def example_changes(before: pd.DataFrame, coming: Coming) -> Examples:
    """Return the differences between a manifest and what ingest would write."""
    after, by = coming.manifest, coming.by
    both = before.merge(after, on="digest", suffixes=("_old", ""))
    new = set(after.loc[~after["digest"].isin(before["digest"]), "path"])
    lost = before[~before["digest"].isin(after["digest"])]
    taken = lost[lost["digest"].isin(list(by))]
    gone = set(lost["path"]) - set(taken["path"])

    def differing(column: str) -> tuple[Change, ...]:
        rows = both.loc[both[column] != both[f"{column}_old"]]
        files = ["" if column == "path" else by.get(digest, "") for digest in rows["digest"]]
        return tuple(map(Change, rows["path"], rows[f"{column}_old"], rows[column], files))

    was = confirmations.read(CONFIRMED) if CONFIRMED.exists() else set()
    relabelled = differing("label")
    elsewhere = {one.path for one in relabelled}
    return Examples(
        added=tuple(sorted(new - gone)),
        changed=tuple(sorted(new & gone)),
        removed=tuple(sorted(gone - new)),
        # A file of another label's folder has another path too.
        renamed=tuple(one for one in differing("path") if one.path not in elsewhere),
        relabelled=relabelled,
        resplit=differing("split"),
        excluded=tuple(
            Change(row.path, row.label, "", by[row.digest])
            for row in taken.sort_values("path").itertuples()
        ),
        confirmed=tuple(
            path
            for path in sorted(confirmations.paths(after, coming.confirmed - was))
            if path not in elsewhere  # a changed label is confirmed too, but is listed once
        ),
        unconfirmed=tuple(sorted(confirmations.paths(after, was - coming.confirmed))),
    )


def views_to_compute(
    settings: Params, manifest: pd.DataFrame, planned: pd.DataFrame | None, kind: Kind
) -> Views:
    """Return how many views extract would look up, and how many of them it would compute."""
    if planned is None:
        training = manifest.loc[manifest["split"] == "train", "digest"]
        planned = kind.plan(training.tolist(), settings.augment)
    total = (len(manifest) + len(planned)) * len(settings.extract.network.each)
    if not engines.is_ready(settings.extract):
        return Views(total, None, None)
    encoder = engines.open_encoder(settings.extract, kind)
    keys = [
        key
        for engine in encoder.engines
        for key in every_view(manifest, planned, engine)["key"].tolist()
    ]
    held = set()
    # Opening a store in a folder would create it.
    if default_address() or features_file(default_folder()).exists():
        with open_store() as cache:
            held = cache.held(keys)
    reused = sum(key in held for key in keys)
    return Views(total, total - reused, reused)
