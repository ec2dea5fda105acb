"""The typed schema of `params.yaml`: checked whole before any work, read section by section."""

import json
import math
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from ..tasks import TASKS
from . import buckets, packages, paths, plugins
from .backbone import IN_PYTORCH, NAMES, OWN, TRAINED_TEXTS, Backbone, inside
from .errors import DataError, ParamsError
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


def told(default: Any, words: str) -> Any:
    """A parameter's default, and what it does, for docs/parameters.md."""
    return Field(default=default, description=words)


Source = Annotated[
    str,
    _form(
        rf"surfaces|folder|csv|parquet|s3|torchvision:\w+|{plugins.PATTERN}",
        "surfaces, folder, csv, parquet, s3, torchvision:NAME or python:MODULE.FUNCTION",
    ),
]


def _parsed_by(parse: Callable[[str], Backbone]) -> AfterValidator:
    """A name of a backbone, as it is written, that can be parsed."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


BackboneName = Annotated[str, _parsed_by(Backbone.parse)]
Candidate = Annotated[str, _parsed_by(Backbone.candidate)]
Weights = Annotated[
    str,
    _form(
        rf"pretrained|random|{OWN}[\w.\-/]+\.(safetensors|pt|pth)",
        f"pretrained, random or {OWN}FILE, with a FILE that ends in .safetensors, .pt or .pth",
    ),
    AfterValidator(inside),
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Channel = Annotated[int, Field(ge=1, le=10_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Optimizer = Literal["sgd", "momentum", "adam", "adamw", "lbfgs", "ridge", "nearest_mean"]
Device = Literal["auto", "cpu", "cuda"]


def _one_name(name: str) -> str:
    tidy = " ".join(unicodedata.normalize("NFC", name).split())
    if not tidy:
        raise ValueError("should name a column")
    if "|" in tidy:
        raise ValueError("should have no |, which stands between the labels of an example")
    return tidy


def _task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"should be {' or '.join(TASKS)}")
    return name


TargetName = Annotated[str, AfterValidator(_one_name)]
TaskName = Annotated[str, AfterValidator(_task)]


class Shares(Section):
    """The asked share of examples in each split; they add up to 1."""

    train: Annotated[float, Field(gt=0, le=1)] = 0.6
    val: Share = 0.2
    test: Share = 0.2

    @model_validator(mode="after")
    def _add_up(self) -> "Shares":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the three shares must add up to 1, not {total:g}")
        return self


class IngestParams(Section):
    """Where the examples come from and how they are split."""

    kind: str = told(
        "image", "what an example is: image, text, audio, vector, or plugin for plugins/kind.py"
    )
    source: Source = told(
        "surfaces",
        "surfaces, folder, csv, parquet, s3 (docs/bucket.md), torchvision:NAME or"
        " python:MODULE.FUNCTION",
    )
    path: Annotated[str, Field(min_length=1)] = told(
        "data/raw/surfaces.csv",
        "the folder or table to read; for s3 the folder of the listing; for torchvision"
        " data/raw/torchvision",
    )
    task: TaskName = told(
        "classification",
        "what is learned: classification (one label an example), multilabel (several, joined by |),"
        " or regression (numbers); docs/tasks.md",
    )
    targets: Annotated[list[TargetName], Field(min_length=1)] | None = told(
        None,
        "columns of the table to learn: for multilabel a column a label (1, 0, or empty where"
        " unknown), for regression a column a number; null: the label",
    )
    shares: Shares = told(Shares(), "of train, val and test, used where the source gives no split")
    seed: Seed = told(0, "draws another split")
    max_refused: Share = told(0.1, "stop when more than this share of the files is refused")
    classes_without_training: Literal["refuse", "leave_out"] = told(
        "refuse",
        "classes without a training example, and labels that none or all of them have:"
        " refuse ends the run, leave_out goes on without them",
    )
    range: (
        Literal["file", "type"]
        | Annotated[
            list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2, max_length=2)
        ]
        | None
    ) = told(
        None,
        "values of pictures of more than 8 bits that become black and white: file (each file's"
        " smallest and largest), type (the data type's; 0 and 1 for floats), or two numbers; null:"
        " 16 bits are divided by 256, floats refused (docs/pictures.md)",
    )
    channels: Channel | Annotated[list[Channel], Field(min_length=3, max_length=3)] | None = told(
        None,
        "channels of pictures that become red, green and blue, counted from 1, or the one that"
        " becomes grey; null: as the file says",
    )

    @model_validator(mode="after")
    def _of_pictures(self) -> "IngestParams":
        if self.kind != "image" and (self.range is not None or self.channels is not None):
            raise ValueError(f"range and channels are of pictures, and kind is {self.kind}")
        if isinstance(self.range, list) and not self.range[0] < self.range[1]:
            raise ValueError(
                f"range is {self.range}; the first number becomes black and should be the smaller"
            )
        return self

    @model_validator(mode="after")
    def _of_tasks(self) -> "IngestParams":
        if self.targets is None:
            return self
        if self.source not in ("csv", "parquet", "s3"):
            raise ValueError(f"targets are columns of a table, and source is {self.source}")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("targets names a column twice")
        return self


class Augmentation(Section):
    """What every kind's section `augment` has; the rest is the kind's own."""

    views: Annotated[int, Field(ge=0, le=1000)] = told(
        4, "augmented views of each training example; 0 for none"
    )
    seed: Seed = told(0, "draws other views")


class ExtractParams(Section):
    """The backbone, and what runs it."""

    backbone: BackboneName = told(
        "efficientnet_lite0",
        NAMES,
    )
    weights: Weights = told(
        "pretrained", f"pretrained, random or {OWN}FILE (.safetensors, .pt or .pth)"
    )
    pooling: Literal["auto", "class", "mean", "class_mean", "gem"] = told(
        "auto",
        "auto (the network's own); class token, mean of the patch tokens, or both; gem for maps",
    )
    engine: Literal["auto", "onnxruntime", "openvino", "torch"] = told(
        "auto", "auto, onnxruntime or openvino (CPU), or torch"
    )
    device: Device = told("auto", "auto, cpu or cuda")
    precision: Literal["float32", "bfloat16"] = told(
        "float32", "float32, or bfloat16 where the processor or GPU has it"
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] = told(
        32, "views that the backbone takes at once"
    )
    features: Literal["vectors", "keys"] = told(
        "vectors",
        "what data/features holds: vectors, or keys and checksums of those in the feature store"
        " (docs/store.md)",
    )

    @model_validator(mode="after")
    def _exist_together(self) -> "ExtractParams":
        if self.engine in ("onnxruntime", "openvino") and self.device == "cuda":
            raise ValueError(f"engine {self.engine} runs on the CPU; for device cuda take torch")
        if self.engine == "onnxruntime" and self.precision != "float32":
            raise ValueError(f"precision {self.precision} needs engine auto, openvino or torch")
        backbone = self.network
        known = all(one.family in IN_PYTORCH for one in backbone.each)
        own = any(one.own_path for one in backbone.each)
        if self.weights != "pretrained" and (not known or own):
            raise ValueError(
                f"backbone {backbone} comes with its own weights; set weights to pretrained"
            )
        if self.pooling != "auto" and not known:
            raise ValueError(f"backbone {backbone} pools by itself; set pooling to auto")
        if backbone.is_joined and backbone.weights_file:
            raise ValueError(
                f"weights {self.weights} are of one network, and backbone {backbone} joins"
                " several; set weights to pretrained"
            )
        if backbone.is_joined and self.pooling != "auto":
            raise ValueError(
                f"pooling {self.pooling} is of one network, and backbone {backbone} joins"
                " several; set pooling to auto"
            )
        return self

    @property
    def network(self) -> Backbone:
        """The backbone that these parameters name, with its weights and pooling."""
        return Backbone.parse(self.backbone, self.weights, self.pooling)

    def of(self, backbone: Backbone) -> "ExtractParams":
        """The same for another backbone."""
        changes = {"weights": backbone.weights, "pooling": backbone.pooling}
        return self.model_copy(update={"backbone": str(backbone), **changes})


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=0, le=65536)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]

MOST_HEADS = 10_000  # that are trained together
CLOSED_FORMS = ("lbfgs", "ridge", "nearest_mean")  # the optimizers whose heads are linear


class TrainParams(Section):
    """The heads to train; a list for a hyperparameter stands for one head per value."""

    optimizer: Optimizer | Annotated[list[Optimizer], Field(min_length=1)] = told(
        "lbfgs", "sgd, momentum, adam, adamw, lbfgs, ridge or nearest_mean"
    )
    learning_rate: Positive | Annotated[list[Positive], Field(min_length=1)] = told(
        0.001, "lbfgs, ridge and nearest_mean do not use it"
    )
    weight_decay: NotNegative | Annotated[list[NotNegative], Field(min_length=1)] = told(
        0.003, "strength of the L2 penalty; nearest_mean does not use it"
    )
    width: Width | Annotated[list[Width], Field(min_length=1)] = told(
        0, "units of the hidden ReLU layer; 0 for a linear head"
    )
    dropout: Dropout | Annotated[list[Dropout], Field(min_length=1)] = told(
        0.0, "before the last layer"
    )
    label_smoothing: Smoothing | Annotated[list[Smoothing], Field(min_length=1)] = told(
        0.0, "share of the target that is spread over all classes"
    )
    seed: Seed | Annotated[list[Seed], Field(min_length=1)] = told(
        0, "of the initial weights, the order of the examples and dropout"
    )
    power: Annotated[float, Field(gt=0, le=1)] = told(
        0.5, "features are raised to this power, sign kept; 1.0 leaves them as they are"
    )
    refit: bool = told(
        True, "train the chosen head again on train and validation examples together"
    )
    epochs: Annotated[int, Field(ge=1, le=100_000)] = told(
        50, "of the heads that are trained by gradient descent"
    )
    batch_size: Annotated[int, Field(ge=1)] = told(256, "examples in a batch of those heads")
    patience: Annotated[int, Field(ge=0)] = told(
        10, "epochs without a better validation loss before training stops; 0: never"
    )
    class_weights: Literal["none", "balanced"] = told("none", "none or balanced")
    loss: Literal["squared", "huber"] = told(
        "squared", "of numbers (regression): squared, or huber, which outliers move less"
    )
    device: Device = told("auto", "auto, cpu or cuda")

    @model_validator(mode="after")
    def _go_together(self) -> "TrainParams":
        product = math.prod(self._values().values())
        if product > MOST_HEADS:
            raise ValueError(
                f"the sweep asks for {product:,} heads, the product of its lists; at most"
                f" {MOST_HEADS:,} are trained together, so shorten a list"
            )
        solved = [name for name in self.optimizers() if name in CLOSED_FORMS]
        widths = self.width if isinstance(self.width, list) else [self.width]
        if solved and 0 not in widths:
            raise ValueError(
                f"width is {self.width}, but {solved[0]} makes linear heads; add 0 to the widths or"
                " take another optimizer"
            )
        return self

    def optimizers(self) -> list[Optimizer]:
        """Those that are listed."""
        return self.optimizer if isinstance(self.optimizer, list) else [self.optimizer]

    def heads(self) -> int:
        """How many different heads are asked for; `every_combination` says which."""
        values = self._values()
        each = math.prod(values.values()) // values.get("optimizer", 1)
        solved = dict.fromkeys(CLOSED_FORMS, values.get("weight_decay", 1)) | {"nearest_mean": 1}
        return sum(solved.get(optimizer, each) for optimizer in set(self.optimizers()))

    def _values(self) -> dict[str, int]:
        """How many different values each list has; only hyperparameters may be lists."""
        return {name: len(set(value)) for name, value in self if isinstance(value, list)}


def _not_one(repeats: int) -> int:
    if repeats == 1:
        raise ValueError("should be 0, or 2 or more: one repeat has no interval")
    return repeats


Repeats = Annotated[int, Field(ge=0, le=1000), AfterValidator(_not_one)]


class EvaluateParams(Section):
    """What is measured on the test split."""

    top_k: Annotated[int, Field(ge=1)] = told(
        3, "an example counts when its label is among the k most probable"
    )
    bootstrap: Annotated[int, Field(ge=1, le=1_000_000)] = told(
        1000, "resamples behind each interval"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = told(0.95, "of the intervals")
    calibration_bins: Annotated[int, Field(ge=1, le=1000)] = told(
        15, "bins of the expected calibration error"
    )
    all_probabilities: bool = told(
        False,
        "write the probability of every class to reports/plots/probabilities.parquet;"
        " predictions.csv has the top_k most probable where there are more than 100 classes",
    )
    seed: Seed = told(0, "of the resampling")
    repeats: Repeats = told(
        0, "other splits on which the chosen head is trained and measured again; 0: none"
    )
    coverage: Annotated[float, Field(gt=0.5, lt=1)] | None = told(
        None,
        "probability with which the set of labels, or the interval of numbers, that an answer gives"
        " holds the truth, such as 0.9; null: no sets (docs/answers.md)",
    )


class ChecksParams(Section):
    """From where on the checks of examples and labels report something."""

    duplicate_cosine: Annotated[float, Field(ge=0, le=1)] = told(
        0.5, "cosine of two examples' features, from which on the examples are compared"
    )
    label_issue_margin: Annotated[float, Field(ge=0, le=1)] = told(
        0.5, "by how much another label must be more probable than the given one"
    )
    least_examples: Annotated[int, Field(ge=0)] = told(
        10, "a class with fewer training examples is reported"
    )
    drift_level: Annotated[float, Field(ge=0.001, lt=1)] = told(  # the permutations tell no less
        0.01, "significance level of the tests of all given splits together, 0.001 or more"
    )
    seed: Seed = told(0, "draws other folds and permutations")


TrainingExamples = Literal["features_and_paths", "features", "none"]


class BundleParams(Section):
    """What a bundle gives away."""

    training_examples: TrainingExamples = told(
        "features_and_paths",
        "what the bundle holds of them: features_and_paths, features (and labels), or none"
        " (docs/privacy.md)",
    )


class ReportParams(Section):
    """What the report gives away."""

    examples: Literal["shown", "hidden"] = told(
        "shown",
        "shown: pictures (or texts, sounds) and paths of examples; hidden: figures alone, and the"
        " first digits of an example's digest (docs/privacy.md)",
    )


# An optional stage is in the graph when its list `run` has this word: dvc.yaml makes one stage
# for each item, so none of an empty list.
Run = Annotated[list[Literal["asked"]], Field(max_length=1)]
RUN = "[asked] adds the stage to the graph"


class LearningCurveParams(Section):
    """The curve of accuracy against examples per class."""

    run: Run = told([], RUN)
    draws: Annotated[int, Field(ge=1, le=1000)] = told(
        5, "draws of the examples, for each number of them"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = told(0.95, "of the intervals")


class RankParams(Section):
    """The backbones to compare on the user's examples."""

    run: Run = told([], RUN)
    backbones: Annotated[list[Candidate], Field(min_length=1)] = told(
        [
            "efficientnet_lite0",
            "efficientnet_lite1",
            "efficientnet_lite2",
            "random:efficientnet_lite0",
        ],
        "the candidates; random:NAME is the same network untrained",
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = told(0.95, "of the intervals")


class FinetuneParams(Section):
    """Training the last blocks of the backbone, or adapters in it, with the head."""

    run: Run = told([], RUN)
    method: Literal["blocks", "lora"] = told(
        "blocks",
        "what learns beside the head: the last blocks, or small adapters in all layers (lora, of"
        " texts only; docs/text.md)",
    )
    blocks: Annotated[int, Field(ge=1)] = told(3, "last blocks of the backbone that are trained")
    lora_rank: Annotated[int, Field(ge=1, le=384)] = told(8, "rank of the adapters of lora")
    epochs: Annotated[int, Field(ge=1, le=100_000)] = told(
        10, "each sees every training example once, augmented anew"
    )
    batch_size: Annotated[int, Field(ge=1)] = told(32, "examples in a batch")
    learning_rate: Positive = told(0.00003, "of the head")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = told(
        0.7, "a block's learning rate is this times that of the block above it"
    )
    weight_decay: NotNegative = told(0.01, "of AdamW")
    batch_norm: Literal["kept", "updated"] = told(
        "kept", "statistics of the trained blocks: kept or updated"
    )
    seed: Seed = told(0, "of the order of the examples")
    device: Device = told("auto", "auto, cpu or cuda")


class FromScratchParams(Section):
    """Training the same network from random weights; the rest of the budget is `finetune`'s."""

    run: Run = told([], RUN)
    learning_rate: Positive = told(0.003, "of all of the network")


class AdaptParams(Section):
    """Adapting the head to another domain, of which there are examples without labels."""

    run: Run = told([], RUN)
    method: Literal["auto", "coral"] = told(
        "auto", "auto (coral or none, by the rule of docs/adapt.md) or coral (features)"
    )

    @field_validator("method", mode="before")
    @classmethod
    def _is_not_gone(cls, method: object) -> object:
        if method in ("prior_shift", "both"):
            raise ValueError("that was removed (docs/adapt.md): set auto or coral")
        return method


def place(folder: str) -> str:
    """A folder, with `~` for the user's home made out, or an address `s3://BUCKET/PREFIX`.

    Raises:
        ValueError: it is relative, so every clone and temporary experiment would look elsewhere,
            or an address of another form.
    """
    if "://" in folder:
        try:
            return buckets.tidied(folder)
        except DataError as error:
            raise ValueError(str(error).removeprefix("the address ")) from None
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

    folder: Annotated[str, AfterValidator(place)] | None = told(
        None,
        "an absolute path, or s3://BUCKET/PREFIX (docs/store.md); null: headstart/features in the"
        " user's cache",
    )
    limit: Annotated[str, AfterValidator(_checked_size)] = told(
        "20GB", "what was used longest ago is deleted first; none: no limit"
    )


class ClusterParams(Section):
    """Where `extract` computes. No stage's result depends on it."""

    runner: Literal["local", "ray"] = told(
        "local", "local: threads of this machine; ray: a Ray cluster (docs/cluster.md)"
    )
    address: (
        Annotated[str, _form(r"([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}", "HOST:PORT of the head")] | None
    ) = told(None, "HOST:PORT of the Ray cluster's head, such as 10.0.0.1:6379")

    @model_validator(mode="after")
    def _go_together(self) -> "ClusterParams":
        if self.runner == "ray" and self.address is None:
            raise ValueError(
                "runner ray needs cluster.address, the HOST:PORT of the Ray cluster's head"
                " (docs/cluster.md)"
            )
        return self


class Params(Section):
    """The whole of `params.yaml`; what the file lacks has its default."""

    ingest: IngestParams = IngestParams()
    augment: SerializeAsAny[Augmentation] = Augmentation()
    extract: ExtractParams = ExtractParams()
    train: TrainParams = TrainParams()
    evaluate: EvaluateParams = EvaluateParams()
    checks: ChecksParams = ChecksParams()
    bundle: BundleParams = BundleParams()
    report: ReportParams = ReportParams()
    learning_curve: LearningCurveParams = LearningCurveParams()
    rank: RankParams = RankParams()
    finetune: FinetuneParams = FinetuneParams()
    from_scratch: FromScratchParams = FromScratchParams()
    adapt: AdaptParams = AdaptParams()
    store: StoreParams = StoreParams()
    cluster: ClusterParams = ClusterParams()

    @model_validator(mode="after")
    def _suit_the_task(self) -> "Params":
        for lacking in sorted(TASKS[self.ingest.task].lacks):
            name, _, value = lacking.partition(" ")
            section, _, field = name.partition(".")
            if not field:
                continue  # no parameter
            settings: Section = getattr(self, section)
            given, default = getattr(settings, field), type(settings).model_fields[field].default
            each = given if isinstance(given, list) else [given]
            if any(str(one) == value if value else one != default for one in each):
                raise ValueError(
                    f"{name} is {given}, which is not for ingest.task {self.ingest.task}; set it to"
                    f" {json.dumps(default)}"
                )
        return self

    @model_validator(mode="after")
    def _solve_the_loss(self) -> "Params":
        if self.train.loss == "huber" and "ridge" in self.train.optimizers():
            raise ValueError(
                "train.optimizer ridge solves for the squared loss, and train.loss is huber; take"
                " lbfgs or another"
            )
        return self


# What older files call a section or a parameter, and what it is called now.
RENAMED = {
    "few": "learning_curve",
    "thaw": "finetune",
    "scratch": "from_scratch",
    "checks.suspect_margin": "checks.label_issue_margin",
    "checks.least_pictures": "checks.least_examples",
}

# Sections of stages that are gone; an older file may have them as long as it does not use them.
GONE = {
    "transfer_gain": "from_scratch, finetune and rank print and write how much transfer gained",
}

Schema = Callable[[str], type[Augmentation]]


def load(schema: Schema, path: Path = PARAMS) -> Params:
    """Read and check all of `params.yaml`.

    Args:
        schema: from the kind of the examples to the schema of `augment`, which is the kind's.
        path: the file.

    Raises:
        ParamsError: the first thing that is wrong, with its key, its value and what is allowed.
    """
    document = _document(path)
    if old := _outdated(document):
        renames = ", ".join(f"{name} to {RENAMED[name]}" for name in old)
        raise ParamsError(f"{path} is of an older version: rename {renames}")
    for name, instead in GONE.items():
        section = document.pop(name, None)
        if isinstance(section, dict) and section.get("run"):
            raise ParamsError(f"{path}: the stage {name} is gone, {instead}: delete the section")
    ingest = document.get("ingest")
    kind = ingest.get("kind", "image") if isinstance(ingest, dict) else "image"
    whole = _with_schema(schema(kind) if isinstance(kind, str) else Augmentation)
    try:
        return whole.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{path}: {_explain(error, document, whole)}") from None


NEED_VALIDATION = ("learning_curve", "finetune", "from_scratch", "adapt")


def stages_that_need_validation(settings: Params) -> list[str]:
    """The stages in the graph that cannot do without validation examples.

    For a check that changes no output: a stage that makes it does not declare the parameters that
    this reads, since the stage that needs them checks again.
    """
    optional = [name for name in NEED_VALIDATION if getattr(settings, name).run]
    return ["train"] * (settings.train.heads() > 1) + optional


def adapts(settings: Params) -> bool:
    """Whether the stage adapt is in the graph; for a check, as above."""
    return bool(settings.adapt.run)


def later_stages_on_cuda(settings: Params) -> list[str]:
    """The parameters that ask for CUDA in the stages after `extract`; for a check, as above."""
    devices = {"train.device": settings.train.device}
    if settings.finetune.run or settings.from_scratch.run:
        devices["finetune.device"] = settings.finetune.device
    return [name for name, device in devices.items() if device == "cuda"]


def _check_sets(settings: Params) -> None:
    """See that the sets of packages are installed that stages will ask for; they check again.

    Raises:
        MissingSetError: which stage or parameter needs which set.
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
    candidates = map(Backbone.candidate, settings.rank.backbones)
    if settings.rank.run and not all(one.has_graph for each in candidates for one in each.each):
        packages.need("torch", "rank")


def _check_trainable(settings: Params, stage: str) -> None:
    """See that a stage that trains networks can train the backbone.

    Raises:
        ParamsError: it cannot, or not as `finetune.method` asks.
    """
    backbone = settings.extract.network
    if backbone.name in TRAINED_TEXTS:
        if stage == "from_scratch":
            raise ParamsError(
                f"from_scratch trains networks of pictures, and extract.backbone {backbone} reads"
                " texts: set from_scratch.run to []"
            )
        return
    if backbone.has_graph or backbone.is_joined:
        of_texts = stage == "finetune" and settings.ingest.kind == "text"
        other = f", or extract.backbone to {TRAINED_TEXTS[0]}" if of_texts else ""
        raise ParamsError(
            f"{stage} trains networks that have a PyTorch form, and extract.backbone"
            f" {backbone} has none: set {stage}.run to []{other}"
        )
    if stage == "finetune" and settings.finetune.method == "lora":
        raise ParamsError(
            f"finetune.method lora is of texts (extract.backbone {TRAINED_TEXTS[0]}), and"
            f" extract.backbone is {backbone}: set finetune.method to blocks"
        )


def _check_plugins(settings: Params) -> None:
    """See that the code of one's own that is named is there; no backbone or source is imported.

    Raises:
        ParamsError: what to write or to install, or that a stage cannot do with it.
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
            f"from_scratch needs random weights, which backbone {settings.extract.backbone} has"
            " none of: set from_scratch.run to [], or take another backbone"
        )


def store_section(path: Path = PARAMS) -> StoreParams:
    """The section `store` by itself; its defaults outside of a project."""
    if not path.exists():
        return StoreParams()
    return _alone("store", path).store


def cluster_section(path: Path = PARAMS) -> ClusterParams:
    """The section `cluster` by itself; no stage declares it, since it changes no output."""
    return _alone("cluster", path).cluster


def _alone(section: str, path: Path) -> Params:
    """The parameters with one section of the file, and the defaults of the others."""
    document = {section: _document(path).get(section, {})}
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{path}: {_explain(error, document, Params)}") from None


def extract_section(values: dict[str, Any], who: str) -> ExtractParams:
    """The section `extract` from values that `who` was given in code.

    Raises:
        ParamsError: the first thing that is wrong, as `load`.
    """
    document = {"extract": values}
    try:
        return Params.model_validate(document).extract
    except ValidationError as error:
        said = _explain(error, document, Params).removeprefix("extract.")
        raise ParamsError(f"{who}: {said}") from None


def check_file(schema: Schema, root: Path = Path()) -> None:
    """See that `params.yaml` is right and has what `dvc.yaml` asks of it by name.

    For these DVC knows no default, and its own error does not say what to write.

    Raises:
        MissingSetError: a set of packages that it asks for is not installed.
        ParamsError: what to write, in one line.
    """
    settings = load(schema, root / PARAMS)
    document = _document(root / PARAMS)
    graph = (root / "dvc.yaml").read_text(encoding="utf-8")
    stages = yaml.safe_load(graph)["stages"]
    deps = [dep for stage in stages.values() for dep in stage.get("do", stage).get("deps", [])]
    if plugins.FOLDER in deps and not (root / plugins.FOLDER).is_dir():
        raise ParamsError(
            f"{root / plugins.FOLDER} is not here, and dvc.yaml declares it: run `mkdir"
            f" {plugins.FOLDER} && touch {plugins.FOLDER}/{plugins.REQUIREMENTS}`, and commit it"
        )
    if paths.WEIGHTS.as_posix() in deps and not (root / paths.WEIGHTS).is_dir():
        raise ParamsError(
            f"{root / paths.WEIGHTS} is not here, and dvc.yaml declares it: run `mkdir"
            f" {paths.WEIGHTS}`"
        )
    asked = re.findall(r"\$\{([\w.]+)\}", graph)
    for stage in stages.values():
        asked += stage.get("do", stage).get("params", [])
    lacking: dict[str, list[str]] = {}
    for name in dict.fromkeys(asked):
        section, _, key = name.partition(".")
        if section not in Params.model_fields:
            continue
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
        raise ParamsError(f"{root / PARAMS} lacks what dvc.yaml asks for by name; add {lines}")
    _check_plugins(settings)
    _check_sets(settings)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is not here; run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ParamsError(f"{path} is not readable YAML: {reason}") from None
    if not isinstance(document, dict):
        raise ParamsError(f"{path} must hold the sections {', '.join(Params.model_fields)}")
    return document


def _outdated(document: dict[str, Any]) -> list[str]:
    """The names in the file that are others now."""
    found = []
    for name in RENAMED:
        section, _, key = name.partition(".")
        inside = document.get(section)
        if inside is not None and (not key or (isinstance(inside, dict) and key in inside)):
            found.append(name)
    return found


@cache
def _with_schema(augment: type[Augmentation]) -> type[Params]:
    """`Params` with the kind's own section `augment`."""
    fields: dict[str, Any] = {"augment": (augment, augment())}
    return create_model("Params", __base__=Params, **fields)


def _explain(error: ValidationError, document: dict[str, Any], whole: type[Params]) -> str:
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
        section = _section(where[:-1], whole)
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
    if not where:
        return allowed  # of two sections that do not go together; the message names the parameters
    if len(where) == 1 and isinstance(value, dict):
        return f"{key}: {allowed}"  # parameters that do not go together; the message names them
    if isinstance(value, str) and "://" in value:
        return f"{key} {allowed}"  # an address may hold a secret
    return f"{key} is {value!r}; {allowed}"


def _is_number(value: Any) -> bool:
    """Whether it is a text that Python takes for a number."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _wanted(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    message = re.sub(r"should be a valid dictionary.*", "should hold parameters", message)
    return message[0].lower() + message[1:]


def _home(where: list[str]) -> str:
    return ".".join(where) or "the file"


def _section(where: list[str], whole: type[Params]) -> list[str]:
    model: type[BaseModel] = whole
    for step in where:
        model = cast(type[BaseModel], model.model_fields[step].annotation)
    return list(model.model_fields)
