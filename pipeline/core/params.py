"""The typed schema of `params.yaml`: checked whole before any work, read section by section."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ParamsError
from .paths import PARAMS


class Section(BaseModel):
    """A stage's parameters: no unknown key, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _form(pattern: str, words: str) -> AfterValidator:
    """A text of the form `pattern`, explained in `words` where it is not."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {words}")
        return text

    return AfterValidator(check)


Source = Annotated[
    str,
    _form(r"surfaces|folder|csv|torchvision:\w+", "surfaces, folder, csv or torchvision:NAME"),
]
BackboneName = Annotated[
    str,
    _form(
        r"efficientnet_lite[012]|(torchvision|timm):[\w.\-/]+",
        "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, torchvision:NAME or timm:NAME",
    ),
]
Candidate = Annotated[
    str,
    _form(
        r"(random:)?(efficientnet_lite[012]|(torchvision|timm):[\w.\-/]+)",
        "a backbone's name, or random: and the name for the same network untrained",
    ),
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
Optimizer = Literal["sgd", "momentum", "adam", "adamw", "lbfgs", "ridge", "nearest_mean"]
Device = Literal["auto", "cpu", "cuda"]


class Shares(Section):
    """The asked share of pictures in each split; they add up to 1."""

    train: Annotated[float, Field(gt=0, le=1)]
    val: Share
    test: Share

    @model_validator(mode="after")
    def _add_up(self) -> "Shares":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the three shares must add up to 1, not {total:g}")
        return self


class IngestParams(Section):
    """Where the pictures come from and how they are split."""

    source: Source
    path: Annotated[str, Field(min_length=1)]
    shares: Shares
    seed: Seed
    max_refused: Share


class AugmentParams(Section):
    """The ranges from which each training view's rotation, scale and flips are drawn."""

    views: Annotated[int, Field(ge=0, le=1000)]
    rotate: Annotated[float, Field(ge=0, le=180)]
    scale: Annotated[float, Field(ge=0, lt=1)]
    hflip: Share
    vflip: Share
    seed: Seed


class ExtractParams(Section):
    """The backbone, and what runs it."""

    backbone: BackboneName
    weights: Literal["pretrained", "random"]
    engine: Literal["auto", "onnxruntime", "openvino", "torch"]
    device: Device
    precision: Literal["float32", "bfloat16"]
    batch_size: Annotated[int, Field(ge=1, le=4096)]


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=0, le=65536)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]


class TrainParams(Section):
    """The heads to train; a list for a knob stands for one head per value."""

    optimizer: Optimizer | Annotated[list[Optimizer], Field(min_length=1)]
    learning_rate: Positive | Annotated[list[Positive], Field(min_length=1)]
    weight_decay: NotNegative | Annotated[list[NotNegative], Field(min_length=1)]
    width: Width | Annotated[list[Width], Field(min_length=1)]
    dropout: Dropout | Annotated[list[Dropout], Field(min_length=1)]
    label_smoothing: Smoothing | Annotated[list[Smoothing], Field(min_length=1)]
    seed: Seed | Annotated[list[Seed], Field(min_length=1)]
    power: Annotated[float, Field(gt=0, le=1)]
    refit: bool
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=0)]
    class_weights: Literal["none", "balanced"]
    device: Device


class EvaluateParams(Section):
    """What is measured on the test split."""

    top_k: Annotated[int, Field(ge=1)]
    bootstrap: Annotated[int, Field(ge=1, le=1_000_000)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]
    seed: Seed


class ChecksParams(Section):
    """From where on the checks of pictures and labels say something."""

    duplicate_cosine: Annotated[float, Field(ge=0, le=1)]
    suspect_margin: Annotated[float, Field(ge=0, le=1)]
    least_pictures: Annotated[int, Field(ge=0)]
    drift_level: Annotated[float, Field(ge=0.001, lt=1)]  # 999 permutations tell no smaller ones
    seed: Seed


# An optional stage is in the graph when its list `run` has this word: dvc.yaml makes one stage
# for each item, so none of an empty list.
Run = Annotated[list[Literal["asked"]], Field(max_length=1)]


class FewParams(Section):
    """The curve of accuracy against pictures per class."""

    run: Run
    draws: Annotated[int, Field(ge=1, le=1000)]
    confidence: Annotated[float, Field(gt=0, lt=1)]


class RankParams(Section):
    """The backbones to compare on the user's pictures."""

    run: Run
    backbones: Annotated[list[Candidate], Field(min_length=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]


class ThawParams(Section):
    """Training the last blocks of the backbone with the head."""

    run: Run
    blocks: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Positive
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    weight_decay: NotNegative
    batch_norm: Literal["kept", "updated"]
    seed: Seed
    device: Device


class ScratchParams(Section):
    """Training the same network from random weights; the rest of the budget is `thaw`'s."""

    run: Run
    learning_rate: Positive


def absolute(folder: str) -> str:
    """`folder`, with `~` for the user's home made out.

    Raises:
        ValueError: it is relative, so every clone and temporary experiment would look elsewhere.
    """
    if not Path(folder).expanduser().is_absolute():
        raise ValueError("should be an absolute path, the same for every clone and experiment")
    return str(Path(folder).expanduser())


def size(text: str) -> int | None:
    """Bytes in a text such as `500MB` or `20GB`; None for `none`.

    Raises:
        ValueError: it is neither.
    """
    if text.strip().lower() == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise ValueError("should be a size such as 500MB or 20GB, or none")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2] or " "))


def _checked_size(text: str) -> str:
    size(text)
    return text


class StoreParams(Section):
    """Where the features are kept, and how much of them. No stage's result depends on it."""

    folder: Annotated[str, AfterValidator(absolute)] | None = None
    limit: Annotated[str, AfterValidator(_checked_size)] = "20GB"


class Params(Section):
    """The whole of `params.yaml`."""

    ingest: IngestParams
    augment: AugmentParams
    extract: ExtractParams
    train: TrainParams
    evaluate: EvaluateParams
    checks: ChecksParams
    few: FewParams
    rank: RankParams
    thaw: ThawParams
    scratch: ScratchParams
    store: StoreParams


def load(path: Path = PARAMS) -> Params:
    """Read and check all of `params.yaml`.

    Raises:
        ParamsError: the first thing that is wrong, with its key, its value and what is allowed.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is not here; run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ParamsError(f"{path} is not readable YAML: {reason}") from None
    if not isinstance(document, dict):
        raise ParamsError(f"{path} must hold the sections {', '.join(Params.model_fields)}")
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{path}: {_explain(error, document)}") from None


def _explain(error: ValidationError, document: dict[str, Any]) -> str:
    """One line for the first thing wrong: key, value, what is allowed."""
    # A misspelt key is both unknown and missing; the unknown one is what the person wrote.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    # Pydantic appends the branches of a union to the place; only keys of the file are a place.
    where: list[str] = []
    value: Any = document
    for step in first["loc"]:
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inside, dict) and step in inside:
            value = inside[step]
        elif first["type"] != "missing":
            break
        where.append(str(step))
    key = ".".join(where)
    if first["type"] == "extra_forbidden":
        section = _section(where[:-1])
        return f"{key} is not a parameter; {_home(where[:-1])} takes {', '.join(section)}"
    if first["type"] == "missing":
        return f"{key} is missing"
    same_place = [p for p in problems if p["loc"][: len(where)] == first["loc"][: len(where)]]
    texts = [p["input"] for p in same_place if p["type"] == "float_type" and _is_number(p["input"])]
    if texts:
        return (
            f"{key} is {value!r}; YAML takes {texts[0]!r} for text: write a number without quotes,"
            " such as 0.001 or 1.0e-3"
        )
    allowed = " or ".join(dict.fromkeys(_wanted(p["msg"]) for p in same_place))
    return f"{key} is {value!r}; {allowed}"


def _is_number(value: Any) -> bool:
    """Whether it is a text that Python takes for a number."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _wanted(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]


def _home(where: list[str]) -> str:
    return ".".join(where) or "the file"


def _section(where: list[str]) -> list[str]:
    model: type[BaseModel] = Params
    for step in where:
        model = cast(type[BaseModel], model.model_fields[step].annotation)
    return list(model.model_fields)
