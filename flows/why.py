"""`headstart why`: which stages `dvc repro` would run, for which reasons, with how many new views.

The command only reads. DVC decides which files changed. The pipeline's own functions work out what
that means for single examples, from the existing manifest and the changed files.
"""

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from dvc.dependency import Dependency
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage import Stage
from dvc_data.hashfile.build import build
from dvc_data.hashfile.obj import HashFile
from dvc_data.hashfile.tree import Tree

from pipeline import kinds
from pipeline.backbones import engines
from pipeline.core import lock, params
from pipeline.core.errors import RefusedError, RunError
from pipeline.core.params import Params
from pipeline.core.paths import LOCK, MANIFEST, PLAN
from pipeline.examples import files, rows
from pipeline.kinds import Kind
from pipeline.runners.wanted import every_view
from pipeline.sources.checked import Checked, drop_repeats
from pipeline.sources.folder import folder as folder_listing
from pipeline.sources.splits import split, unlabelled
from pipeline.sources.table import table as table_listing
from pipeline.sources.targets import targeted
from pipeline.store.database import features_file
from pipeline.store.places import default_address, default_folder
from pipeline.store.vectors import open_store

NAMED = 3  # examples listed by name; the rest are counted


class Folder(NamedTuple):
    """The examples' folder as a dependency, and its current state in DVC."""

    dep: Dependency
    now: HashFile


class Reasons(NamedTuple):
    """Why a stage would run: its own changes, and the stages above that would run."""

    own: list[str]
    above: list[str]


def why() -> list[str]:
    """Return what a run would do: a line per stage in the order of the graph, and one on views.

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


def _why(settings: Params) -> list[str]:
    kind = kinds.named(kinds.declared(settings.ingest))
    reasons: dict[str, Reasons] = {}
    touched: set[str] | None = set()
    with Repo() as repo:
        graph = get_active_graph(repo.index.graph)
        for stage in plan_repro(graph):
            if not stage.cmd:
                continue
            folder = example_folder(stage, settings) if stage.name == "ingest" else None
            own = own_reasons(stage, folder)
            stages_above = [up for up in graph.successors(stage) if up.cmd]  # not `.dvc` files
            above = [up.name for up in stages_above if up.name in reasons]
            if own or above:
                reasons[stage.name] = Reasons(own, above)
            if stage.name == "ingest" and own:
                touched = touched_files(folder)
        names = [stage.name for stage in plan_repro(graph) if stage.cmd]

    manifest = pd.read_parquet(MANIFEST) if MANIFEST.exists() else None
    if "ingest" in reasons:
        coming = None if touched is None else coming_manifest(settings, manifest, touched, kind)
        if coming is not None and manifest is not None:
            reasons["ingest"].own.extend(example_changes(manifest, coming, kind))
        manifest = coming

    lines = []
    for name in names:
        lines.append(f"{name}: {in_words(reasons.get(name))}")
        if name == "extract" and name in reasons:
            planned = None if {"ingest", "augment"} & reasons.keys() else pd.read_parquet(PLAN)
            lines.append(f"  {views_to_compute(settings, manifest, planned, kind)}")
    return lines


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
                if own := own_reasons(one, folder):
                    raise RunError(f"{one.name} is out of date ({own[0]}): run `dvc repro` first")
    except DvcException as error:
        raise RunError(f"DVC: {' '.join(str(error).split())}") from error


def in_words(reasons: Reasons | None) -> str:
    """Return `up to date`, `would run: …`, or `may run` if only stages above would run."""
    if reasons is None:
        return "up to date"
    if reasons.own:
        return "would run: " + "; ".join(reasons.own)
    return f"runs if the output of {' or '.join(reasons.above)} changes"


def example_folder(stage: Stage, settings: Params) -> Folder | None:
    """Return the folder that `ingest` reads; None if it is missing or `ingest` has not read it."""
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


def own_reasons(stage: Stage, folder: Folder | None) -> list[str]:
    """Return the differences of a stage's inputs, command and outputs from `dvc.lock`.

    If the stage reads `folder`, DVC need not list it again, which takes seconds for 100,000 files.
    """
    if not any(out.hash_info for out in stage.outs):
        return ["it has never run here"]
    words = ["its command changed"] if stage.cmd_changed else []
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            words += parameter_changes(dep)
        elif folder and dep is folder.dep:
            words += [f"{dep} modified"] if folder.now.hash_info != dep.hash_info else []
        else:
            words += [f"{path} {status}" for path, status in dep.workspace_status().items()]
    for out in stage.outs:
        words += [f"{path} {status}" for path, status in out.workspace_status().items()]
    return words


def parameter_changes(dep: ParamsDependency) -> list[str]:
    """Return each changed parameter, as in `augment.rotate 15 → 20`; code only changed."""
    old = _flat(dep.hash_info.value or {})
    new = _flat(dep.read_params(flatten=False))
    changes = [
        (key, old.get(key, "absent"), new.get(key, "absent"))
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if dep.def_path == LOCK.name:
        return lock.in_words(changes)
    return [f"{key} {before} → {now}" for key, before, now in changes]


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

    None if DVC does not have the list of the earlier files.
    """
    if folder and not isinstance(folder.now, Tree) and Path(folder.dep.def_path).is_file():
        return {folder.dep.def_path}  # a table that holds the examples
    before = folder.dep.get_obj() if folder else None
    if folder is None or not (isinstance(before, Tree) and isinstance(folder.now, Tree)):
        return None
    old = {key: info.value for key, _, info in before}
    path = folder.dep.def_path
    return {"/".join((path, *key)) for key, _, info in folder.now if old.get(key) != info.value}


def coming_manifest(
    settings: Params, manifest: pd.DataFrame | None, touched: set[str], kind: Kind
) -> pd.DataFrame | None:
    """Return the manifest that ingest would write, as far as it is known without decoding examples.

    None if the source makes its examples, or if ingest has never run. Only touched files are read.
    A file that was refused before and has not changed is assumed to be refused again.
    """
    source = settings.ingest.source
    if manifest is None or source not in ("folder", "csv", "parquet"):
        return None
    known = dict(zip(manifest["path"], manifest["digest"], strict=True))
    root = Path(settings.ingest.path)
    passed = []
    with contextlib.redirect_stdout(io.StringIO()):  # discard the lines that ingest prints
        if source == "folder":
            listed = folder_listing(root)
        else:
            listed = table_listing(root, source, kind, tuple(settings.ingest.targets or ()))
        for found in targeted(listed, settings.ingest).found:
            path = found.path.as_posix()
            digest = known.get(path)
            with contextlib.suppress(RefusedError):
                if touched & in_files(found.path):
                    digest = files.digest(files.load(found.path, kind.most_bytes))
            if digest:
                passed.append(Checked(found, digest, tuple(None for _ in kind.columns)))
        kept, _ = drop_repeats(passed, kind)
        labelled, _ = unlabelled(kept)
        return split(labelled, settings.ingest, kind, listed.columns)


def in_files(example: Path) -> set[str]:
    """Return the files that hold the example: one, or a table and the matrix beside it."""
    table = rows.parted(example)
    if table is None:
        return {example.as_posix()}
    return {table[0].as_posix(), table[0].with_name(rows.MATRIX).as_posix()}


def example_changes(before: pd.DataFrame, after: pd.DataFrame, kind: Kind) -> list[str]:
    """List examples added, changed, removed, renamed, relabelled or moved to another split."""
    both = before.merge(after, on="digest", suffixes=("_old", ""))
    new = after[~after["digest"].isin(before["digest"])]
    gone = before[~before["digest"].isin(after["digest"])]
    changed = sorted(set(new["path"]) & set(gone["path"]))
    relabelled = both[both["label"] != both["label_old"]]
    moved = both[(both["path"] != both["path_old"]) & (both["label"] == both["label_old"])]
    resplit = both[both["split"] != both["split_old"]]
    groups = {
        "added": sorted(set(new["path"]) - set(changed)),
        "changed": changed,
        "removed": sorted(set(gone["path"]) - set(changed)),
        "renamed": moved["path"].tolist(),
        "relabelled": [
            f"{row.path} ({row.label_old} → {row.label})" for row in relabelled.itertuples()
        ],
        "in another split": [
            f"{row.path} ({row.split_old} → {row.split})" for row in resplit.itertuples()
        ],
    }
    return [_named(change, paths, kind) for change, paths in groups.items() if paths]


def _named(change: str, paths: list[str], kind: Kind) -> str:
    more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
    noun = kind.noun if len(paths) == 1 else kind.nouns
    return f"{len(paths):,} {noun} {change}: {', '.join(paths[:NAMED])}{more}"


def views_to_compute(
    settings: Params, manifest: pd.DataFrame | None, planned: pd.DataFrame | None, kind: Kind
) -> str:
    """Return how many views extract would look up, and how many of them it would compute."""
    if manifest is None:
        return "how many views is known once ingest has run"
    if planned is None:
        training = manifest.loc[manifest["split"] == "train", "digest"]
        planned = kind.plan(training.tolist(), settings.augment)
    total = len(manifest) + len(planned)
    if not engines.is_ready(settings.extract):
        return f"{total:,} views; how many are computed is known once the backbone is loaded"
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
    return f"{len(keys) - reused:,} views would be computed, {reused:,} reused"
