"""Checks of a project beyond its parameters' values: keys, folders, packages and plugins."""

import re
from pathlib import Path
from typing import Any

import yaml

from .. import packages, paths, plugins, yaml_in_c
from ..backbone import TRAINED_TEXTS, Backbone
from ..errors import ParamsError
from ..paths import PARAMS
from .reading import Schema, document_in, load
from .schema import CLOSED_FORMS
from .whole import Params


def check_file(schema: Schema, root: Path = Path()) -> Params:
    """Return `params.yaml`, which has to be valid and to have the parameters that `dvc.yaml` names.

    DVC has no defaults for these parameters, and its own error does not say what to write.

    Raises:
        MissingSetError: an extra that the parameters need is not installed.
        ParamsError: the message says in one line what to write.
    """
    settings = load(schema, root / PARAMS)
    document = document_in(root / PARAMS)
    graph = (root / "dvc.yaml").read_text(encoding="utf-8")
    deps = [dep for stage in stages_in(graph).values() for dep in stage.get("deps", [])]
    if plugins.FOLDER in deps and not (root / plugins.FOLDER).is_dir():
        raise ParamsError(
            f"{root / plugins.FOLDER} does not exist, but dvc.yaml declares it: run `mkdir"
            f" {plugins.FOLDER} && touch {plugins.FOLDER}/{plugins.REQUIREMENTS}`, and commit it"
        )
    if paths.WEIGHTS.as_posix() in deps and not (root / paths.WEIGHTS).is_dir():
        raise ParamsError(
            f"{root / paths.WEIGHTS} does not exist, but dvc.yaml declares it: run `mkdir"
            f" {paths.WEIGHTS}`"
        )
    lacking: dict[str, list[str]] = {}
    for name in asked(graph):
        section, _, key = name.partition(".")
        inside = document.get(section)
        if isinstance(inside, dict) and (not key or key in inside):
            continue
        default = getattr(Params.model_fields[section].default, key) if key else {}
        shown = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        lacking.setdefault(section, []).append(f"{key}: {shown}" if key else "")
    if lacking:
        lines = "; ".join(
            f"`{section}: {{{', '.join(filter(None, keys))}}}`" for section, keys in lacking.items()
        )
        raise ParamsError(f"{root / PARAMS} lacks parameters that dvc.yaml names; add {lines}")
    _check_plugins(settings)
    _check_sets(settings)
    return settings


def stages_in(graph: str) -> dict[str, dict[str, Any]]:
    """Return the stages in the text of a `dvc.yaml` by name; a `foreach` is one stage.

    Raises:
        ParamsError: the text has no stages, or is not YAML.
    """
    try:
        stages = yaml_in_c.load(graph)["stages"].items()
        return {name: dict(stage.get("do", stage)) for name, stage in stages}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "at ")
        raise ParamsError(f"dvc.yaml is not readable YAML: {reason}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ParamsError("dvc.yaml has no stages, or has an empty one") from None


def asked(graph: str) -> list[str]:
    """Return the sections and parameters of `params.yaml` that the text of a `dvc.yaml` names.

    Names that are not in the schema are left out, such as a typo in the user's own stage.
    """
    names = re.findall(r"\$\{([\w.]+)\}", graph)
    for stage in stages_in(graph).values():
        names += [name for name in stage.get("params", []) if isinstance(name, str)]

    def is_known(name: str) -> bool:
        section, _, key = name.partition(".")
        field = Params.model_fields.get(section)
        return field is not None and (not key or hasattr(field.default, key))

    return list(filter(is_known, dict.fromkeys(names)))


def _check_sets(settings: Params) -> None:
    """Check that the extras for the stages are installed; each stage checks again.

    Raises:
        MissingSetError: the message names the stage or parameter, and the set that it needs.
    """
    if settings.ingest.kind in packages.SETS:
        packages.need(settings.ingest.kind, f"ingest.kind {settings.ingest.kind}")
    optimizers = settings.train.optimizer
    if not set(optimizers if isinstance(optimizers, list) else [optimizers]) <= set(CLOSED_FORMS):
        packages.need("torch", f"train.optimizer {optimizers}")
    if settings.ingest.source.startswith("torchvision:"):
        packages.need("torch", f"ingest.source {settings.ingest.source}")
    if settings.ingest.source == "s3":
        packages.need("s3", "ingest.source s3")
    if settings.cluster.runner == "ray":
        packages.need("ray", "cluster.runner ray")
    if settings.extract.engine in ("openvino", "torch"):
        packages.need(settings.extract.engine, f"extract.engine {settings.extract.engine}")
    for stage in ("finetune", "from_scratch"):
        if getattr(settings, stage).run:
            packages.need("torch", stage)
            _check_trainable(settings, stage)
    if settings.rank.run:
        for name in settings.rank.backbones:
            for needed in filter(None, (one.needs for one in Backbone.candidate(name).each)):
                packages.need(needed, f"rank of {name}")


def _check_trainable(settings: Params, stage: str) -> None:
    """Check that a stage that trains networks can train the backbone.

    Raises:
        ParamsError: the stage cannot train the backbone, or not with this `finetune.method`.
    """
    backbone = settings.extract.network
    if backbone.name in TRAINED_TEXTS:
        if stage == "from_scratch":
            raise ParamsError(
                f"from_scratch trains networks for pictures, but extract.backbone {backbone} reads"
                " texts: set from_scratch.run to []"
            )
        return
    if backbone.has_graph or backbone.is_joined:
        other = f", or for texts extract.backbone to {TRAINED_TEXTS[0]}" * (stage == "finetune")
        raise ParamsError(
            f"{stage} trains networks that have a PyTorch form, but extract.backbone"
            f" {backbone} has none: set {stage}.run to []{other}"
        )
    if stage == "finetune" and settings.finetune.method == "lora":
        raise ParamsError(
            f"finetune.method lora is for texts (extract.backbone {TRAINED_TEXTS[0]}), but"
            f" extract.backbone is {backbone}: set finetune.method to blocks"
        )


def _check_plugins(settings: Params) -> None:
    """Check that the user's own code exists where `params.yaml` names it; import nothing.

    Raises:
        ParamsError: the message says what to write or to install, or that a stage does not support
            the plugin.
    """
    source, backbones = settings.ingest.source, [settings.extract.network]
    if plugins.is_plugin(source):
        plugins.check(source, f"ingest.source {source}")
    if settings.rank.run:
        backbones += map(Backbone.candidate, settings.rank.backbones)
    for one in (one for backbone in backbones for one in backbone.each):
        if one.family == "python":
            plugins.check(str(one), f"backbone {one}")
    if settings.from_scratch.run and settings.extract.network.family == "python":
        raise ParamsError(
            f"from_scratch needs random weights, but backbone {settings.extract.backbone} has only"
            " its own: set from_scratch.run to [], or use another backbone"
        )
