"""The sections of `params.yaml`: types, bounds, defaults, and what each parameter does."""

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from ...tasks import TASKS
from .. import plugins
from ..backbone import IN_PYTORCH, NAMES, OWN, Backbone, inside


class Section(BaseModel):
    """A stage's parameters: no unknown key, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def form(pattern: str, words: str) -> AfterValidator:
    """Require a text to match `pattern`; `words` explain the form in the error."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {words}")
        return text

    return AfterValidator(check)


def setting(default: Any, words: str) -> Any:
    """Define a parameter: its default, and its description for docs/parameters.md."""
    return Field(default=default, description=words)


Source = Annotated[
    str,
    form(
        rf"surfaces|folder|csv|parquet|s3|torchvision:\w+|{plugins.PATTERN}",
        "surfaces, folder, csv, parquet, s3, torchvision:NAME or python:MODULE.FUNCTION",
    ),
]


def _parsed_by(parse: Callable[[str], Backbone]) -> AfterValidator:
    """Require that `parse` accepts a backbone's name; the value stays as written."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


BackboneName = Annotated[str, _parsed_by(Backbone.parse)]
Candidate = Annotated[str, _parsed_by(Backbone.candidate)]
Weights = Annotated[
    str,
    form(
        rf"pretrained|random|{OWN}[\w.\-/]+\.(safetensors|pt|pth)",
        f"pretrained, random or {OWN}FILE, with a FILE that ends in .safetensors, .pt or .pth",
    ),
    AfterValidator(inside),
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
Optimizer = Literal["sgd", "momentum", "adam", "adamw", "lbfgs", "ridge", "lda", "nearest_mean"]
Device = Literal["auto", "cpu", "cuda"]


def _one_name(name: str) -> str:
    tidy = " ".join(unicodedata.normalize("NFC", name).split())
    if not tidy:
        raise ValueError("should name a column")
    if "|" in tidy:
        raise ValueError("should not contain |, which separates the labels of an example")
    return tidy


def _task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"should be {' or '.join(TASKS)}")
    return name


def _encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError("should be an encoding that Python knows, such as latin-1") from None
    return name


Encoding = Annotated[str, AfterValidator(_encoding)]
TargetName = Annotated[str, AfterValidator(_one_name)]
Targets = Annotated[
    list[TargetName],
    Field(min_length=1),
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
]
TaskName = Annotated[str, AfterValidator(_task)]


class Shares(Section):
    """The requested fraction of examples in each split; the fractions sum to 1."""

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
    """The source of the examples, the task and the split."""

    kind: str = setting(
        "image",
        "kind of example: `image`, `text`, `audio`, `vector`, or `plugin` (docs/plugins.md)",
    )
    source: Source = setting(
        "surfaces",
        "`surfaces` (the example pictures), `folder`, `csv`, `parquet`, `s3` (docs/bucket.md),"
        " `torchvision:NAME` or `python:MODULE.FUNCTION`",
    )
    path: Annotated[str, Field(min_length=1)] = setting(
        "data/raw/surfaces.csv",
        "folder or table to read. With source `s3`, use the folder that `headstart list` wrote."
        " With `torchvision:NAME`, use `data/raw/torchvision`",
    )
    task: TaskName = setting(
        "classification",
        "`classification` (one label per example), `multilabel` (several labels, separated by"
        " vertical bars) or `regression` (docs/tasks.md)",
    )
    targets: Targets | None = setting(
        None,
        "columns of the table to predict. For `multilabel`, list one column per label; its cells"
        " are 1, 0 or empty (unknown). For `regression`, list one column per target. With"
        " `null`, the model predicts the column `ingest.label`",
    )
    label: TargetName = setting("label", "column of the table with the labels")
    encoding: Encoding = setting(
        "utf-8", "encoding of a CSV table, as Python names it, such as `latin-1` or `utf-16`"
    )
    separator: Literal[",", ";", "\t", "|"] = setting(
        ",", 'separator of a CSV table: `","`, `";"`, `"\\t"` (tab) or a vertical bar'
    )
    shares: Shares = setting(
        Shares(),
        "fractions of training, validation and test examples, if the source does not define a"
        " split",
    )
    seed: Seed = setting(0, "random seed for the split")
    val_of_each_class: bool = setting(
        False,
        "with `true`, `ingest` moves a training example to the validation split for each class that"
        " has no validation example; only for classification"
        " (docs/pictures.md#labels-splits-groups)",
    )
    max_refused: Share = setting(
        0.1, "stop if `ingest` refuses more than this fraction of the files"
    )
    classes_without_training: Literal["refuse", "leave_out"] = setting(
        "refuse",
        "what to do with a class without training examples. `refuse` ends the run. `leave_out`"
        " continues without the class. In `multilabel` tasks, the parameter applies to labels that"
        " all or none of the training examples have",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_what_other_kinds_have(cls, given: Any) -> Any:
        """Accept a parameter of another kind if it is null, as in the shipped `params.yaml`."""
        if not isinstance(given, dict):
            return given
        return {
            name: of for name, of in given.items() if of is not None or name in cls.model_fields
        }

    @model_validator(mode="after")
    def _of_tasks(self) -> "IngestParams":
        for name in ("label", "encoding", "separator"):
            value, default = getattr(self, name), type(self).model_fields[name].default
            tables = ("csv", "s3") if name != "label" else ("csv", "parquet", "s3")
            if value != default and self.source not in tables:
                what = "names a column" if name == "label" else f"is the {name}"
                form = "table" if name == "label" else "CSV table"
                raise ValueError(f"{name} {what} of a {form}, but source is {self.source}")
        if self.targets is None:
            return self
        if self.label != "label":
            raise ValueError(
                f"label is {self.label}, but targets names columns too; leave one of them out"
            )
        if self.source not in ("csv", "parquet", "s3"):
            raise ValueError(f"targets are columns of a table, but source is {self.source}")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("targets contains the same column twice")
        return self


class Augmentation(Section):
    """The parameters of `augment` that all kinds have; each kind adds its own."""

    ingest: ClassVar[type[IngestParams]] = IngestParams  # a kind may add parameters to it

    views: Annotated[int, Field(ge=0, le=1000)] = setting(
        4, "number of augmented views of each training example"
    )
    seed: Seed = setting(0, "random seed for the views")


class ExtractParams(Section):
    """The backbone, and the library that runs it (the engine)."""

    backbone: BackboneName = setting(
        "efficientnet_lite0",
        f"name of the network, or several names joined by + (docs/backbones.md): {NAMES}",
    )
    weights: Weights = setting(
        "pretrained", f"`pretrained`, `random` or `{OWN}FILE` (`.safetensors`, `.pt` or `.pth`)"
    )
    pooling: Literal["auto", "class", "mean", "class_mean", "gem"] = setting(
        "auto",
        "how the network's last output becomes one vector: `auto` (the network's own pooling),"
        " `class` (class token), `mean` (of the patch tokens), `class_mean` (both) or `gem`"
        " (generalised mean of the feature maps)",
    )
    blocks: Literal["last", "all"] = setting(
        "last",
        "`last` computes the features of the last layer. `all` also computes the mean outputs of"
        " some inner blocks (docs/backbones.md#inner-blocks)",
    )
    engine: Literal["auto", "onnxruntime", "openvino", "torch"] = setting(
        "auto",
        "library that runs the backbone: `auto`, `onnxruntime` (CPU), `openvino` (CPU) or `torch`",
    )
    device: Device = setting("auto", "`auto`, `cpu` or `cuda`")
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", "`float32`, or `bfloat16` if the processor or GPU supports it"
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] = setting(32, "number of views per batch")
    features: Literal["vectors", "keys"] = setting(
        "vectors",
        "with `vectors`, `data/features` contains the feature vectors. With `keys`, it contains"
        " only keys and checksums, and the vectors stay in the feature store (docs/store.md)",
    )

    @model_validator(mode="after")
    def _exist_together(self) -> "ExtractParams":
        if self.engine in ("onnxruntime", "openvino") and self.device == "cuda":
            raise ValueError(f"engine {self.engine} runs on the CPU; for device cuda use torch")
        if self.engine == "onnxruntime" and self.precision != "float32":
            raise ValueError(f"precision {self.precision} needs engine auto, openvino or torch")
        if self.blocks == "all" and self.precision != "float32":
            raise ValueError(
                f"precision {self.precision} rounds the last layer differently if inner blocks are"
                " computed too; set blocks to last or precision to float32"
            )
        backbone = self.network
        known = all(one.family in IN_PYTORCH for one in backbone.each)
        own = any(one.own_path for one in backbone.each)
        if self.weights != "pretrained" and (not known or own):
            raise ValueError(
                f"backbone {backbone} comes with its own weights; set weights to pretrained"
            )
        if self.pooling != "auto" and not known:
            raise ValueError(f"backbone {backbone} has its own pooling; set pooling to auto")
        if backbone.is_joined and backbone.weights_file:
            raise ValueError(
                f"weights {self.weights} are for one network, but backbone {backbone} joins"
                " several; set weights to pretrained"
            )
        if backbone.is_joined and self.pooling != "auto":
            raise ValueError(
                f"pooling {self.pooling} is for one network, but backbone {backbone} joins"
                " several; set pooling to auto"
            )
        return self

    @property
    def network(self) -> Backbone:
        """The backbone that these parameters name, with its weights and pooling."""
        return Backbone.parse(self.backbone, self.weights, self.pooling)

    def of(self, backbone: Backbone) -> "ExtractParams":
        """Return these parameters with `backbone` instead."""
        changes = {"weights": backbone.weights, "pooling": backbone.pooling}
        return self.model_copy(update={"backbone": str(backbone), **changes})


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=0, le=65536)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]

MOST_HEADS = 10_000  # trained together
CLOSED_FORMS = ("lbfgs", "ridge", "lda", "nearest_mean")  # optimizers for linear heads
AUTO = "auto"  # the weight decay that cross-validation chooses
OF_AUTO = ("lbfgs", "ridge")


def _penalties(given: Any) -> Any:
    if isinstance(given, list) and AUTO in given:
        raise ValueError("should be a number, a list of numbers, or just auto")
    return given


class TrainParams(Section):
    """The head. If hyperparameters are lists, `train` trains one head for each combination."""

    optimizer: Optimizer | Annotated[list[Optimizer], Field(min_length=1)] = setting(
        "lbfgs",
        "algorithm that trains the head: `sgd`, `momentum`, `adam`, `adamw`, `lbfgs`, `ridge`,"
        " `lda` or `nearest_mean`",
    )
    learning_rate: Positive | Annotated[list[Positive], Field(min_length=1)] = setting(
        0.001, "learning rate for `sgd`, `momentum`, `adam` and `adamw`"
    )
    weight_decay: Annotated[
        Literal["auto"] | NotNegative | Annotated[list[NotNegative], Field(min_length=1)],
        BeforeValidator(_penalties),
    ] = setting(
        0.003,
        "strength of the L2 penalty. `lda` and `nearest_mean` ignore it. With `auto`,"
        " cross-validation chooses the strength for `lbfgs` or `ridge` (docs/learning.md)",
    )
    width: Width | Annotated[list[Width], Field(min_length=1)] = setting(
        0, "number of units in the hidden ReLU layer; 0 means a linear head"
    )
    dropout: Dropout | Annotated[list[Dropout], Field(min_length=1)] = setting(
        0.0, "dropout probability before the last layer"
    )
    label_smoothing: Smoothing | Annotated[list[Smoothing], Field(min_length=1)] = setting(
        0.0, "fraction of the target probability that is spread over all classes"
    )
    seed: Seed | Annotated[list[Seed], Field(min_length=1)] = setting(
        0, "random seed for the initial weights, the order of the examples and dropout"
    )
    power: Annotated[float, Field(gt=0, le=1)] = setting(
        0.5,
        "power to which the absolute value of each feature is raised; the sign is kept. With 1.0,"
        " the features do not change",
    )
    layers: Literal["last", "all", "auto"] = setting(
        "last",
        "with `last`, the head uses the last layer. With `all`, it also uses the inner blocks from"
        " `extract.blocks: all`. With `auto`, cross-validation chooses between the last layer and"
        " all layers, and among the combinations of listed hyperparameters (docs/learning.md)",
    )
    refit: bool = setting(
        True, "retrain the chosen head on the training and validation examples together"
    )
    epochs: Annotated[int, Field(ge=1, le=100_000)] = setting(
        50, "maximum number of epochs of gradient descent"
    )
    batch_size: Annotated[int, Field(ge=1)] = setting(
        256, "number of examples per batch of gradient descent"
    )
    patience: Annotated[int, Field(ge=0)] = setting(
        10,
        "training stops after this number of epochs without a lower validation loss; 0 disables"
        " early stopping",
    )
    class_weights: Literal["none", "balanced"] = setting(
        "none", "`none`, or `balanced` (the same total weight for each class)"
    )
    row_weights: Literal["none", "example"] = setting(
        "none",
        "with `none`, every view has the same weight. With `example`, every example has the same"
        " weight, however many views it has",
    )
    loss: Literal["squared", "huber"] = setting(
        "squared", "regression loss: `squared`, or `huber`, which is robust to outliers"
    )
    coverage: Annotated[float, Field(gt=0.5, lt=1)] | None = setting(
        None,
        "coverage of prediction sets or prediction intervals, such as 0.9; `null` disables both"
        " (docs/answers.md)",
    )
    device: Device = setting("auto", "`auto`, `cpu` or `cuda`")

    @model_validator(mode="after")
    def _go_together(self) -> "TrainParams":
        product = math.prod(self._values().values())
        if product > MOST_HEADS:
            raise ValueError(
                f"the sweep has {product:,} heads, the product of its lists; at most"
                f" {MOST_HEADS:,} are trained together, so shorten a list"
            )
        others = [name for name in self.optimizers() if name not in OF_AUTO]
        if self.weight_decay == AUTO and others:
            raise ValueError(
                f"weight_decay auto works with {' and '.join(OF_AUTO)}, but optimizer is"
                f" {others[0]}; set weight_decay to a number"
            )
        solved = [name for name in self.optimizers() if name in CLOSED_FORMS]
        widths = self.width if isinstance(self.width, list) else [self.width]
        if solved and 0 not in widths:
            raise ValueError(
                f"width is {self.width}, but {solved[0]} trains only linear heads; add 0 to the"
                " widths or use another optimizer"
            )
        descending = [name for name in self.optimizers() if name not in CLOSED_FORMS]
        if self.cross_validates and descending:
            raise ValueError(
                f"layers auto is for {', '.join(CLOSED_FORMS)}, but optimizer is {descending[0]};"
                " set layers to last or all"
            )
        return self

    @property
    def cross_validates(self) -> bool:
        """Whether cross-validation chooses the head, instead of the validation examples."""
        return self.layers == AUTO and self.weight_decay != AUTO

    def optimizers(self) -> list[Optimizer]:
        """Return the listed optimizers."""
        return self.optimizer if isinstance(self.optimizer, list) else [self.optimizer]

    def heads(self) -> int:
        """Return the number of different heads to train; it depends on `every_combination`."""
        values = self._values()
        each = math.prod(values.values()) // values.get("optimizer", 1)
        solved = dict.fromkeys(CLOSED_FORMS, 1)
        solved |= dict.fromkeys(OF_AUTO, values.get("weight_decay", 1))
        return sum(solved.get(optimizer, each) for optimizer in set(self.optimizers()))

    def _values(self) -> dict[str, int]:
        """Return the number of different values in each list; only hyperparameters may be lists."""
        return {name: len(set(value)) for name, value in self if isinstance(value, list)}


def _not_one(repeats: int) -> int:
    if repeats == 1:
        raise ValueError("should be 0, or 2 or more: one repeat has no interval")
    return repeats


Repeats = Annotated[int, Field(ge=0, le=1000), AfterValidator(_not_one)]


class EvaluateParams(Section):
    """The metrics on the test split."""

    top_k: Annotated[int, Field(ge=1)] = setting(
        3,
        "k in top-k accuracy, the fraction of examples whose label is among the k most probable"
        " classes",
    )
    bootstrap: Annotated[int, Field(ge=1, le=1_000_000)] = setting(
        1000, "number of bootstrap resamples for each interval"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = setting(
        0.95, "confidence level of the intervals"
    )
    calibration_bins: Annotated[int, Field(ge=1, le=1000)] = setting(
        15, "number of bins for the expected calibration error"
    )
    all_probabilities: bool = setting(
        False,
        "with `true`, `evaluate` also writes the probability of every class to"
        " `reports/plots/probabilities.parquet`. With more than 100 classes, `predictions.csv`"
        " contains only the `top_k` most probable classes",
    )
    seed: Seed = setting(0, "random seed for the bootstrap and the repeats")
    repeats: Repeats = setting(
        0,
        "number of other random splits on which the chosen head is trained and evaluated again"
        " (docs/figures.md)",
    )


class ChecksParams(Section):
    """Thresholds of the data checks: near-duplicates, label issues, small classes, drift."""

    duplicate_cosine: Annotated[float, Field(ge=0, le=1)] = setting(
        0.5,
        "`checks` looks for near-duplicates only among pairs of examples whose features have at"
        " least this cosine similarity",
    )
    label_issue_margin: Annotated[float, Field(ge=0, le=1)] = setting(
        0.5,
        "`checks` reports a label issue if another label is more probable by at least this margin",
    )
    least_examples: Annotated[int, Field(ge=0)] = setting(
        10, "`checks` reports a class with fewer training examples than this number"
    )
    drift_level: Annotated[float, Field(ge=0.001, lt=1)] = setting(  # the permutations tell no less
        0.01, "overall significance level of the drift tests; at least 0.001"
    )
    seed: Seed = setting(
        0, "random seed for cross-validation folds and the permutations of drift tests"
    )


TrainingExamples = Literal["features_and_paths", "features", "none"]


class BundleParams(Section):
    """What a bundle reveals about the training examples."""

    training_examples: TrainingExamples = setting(
        "features_and_paths",
        "what the bundle stores about the training examples: `features_and_paths`, `features` or"
        " `none`. The first two also include labels (docs/privacy.md)",
    )


class ReportParams(Section):
    """What the report reveals about the examples."""

    examples: Literal["shown", "hidden"] = setting(
        "shown",
        "with `shown`, the report shows the examples and their paths. With `hidden`, it shows only"
        " metrics, charts and the first digits of each example's digest (docs/privacy.md)",
    )


# An optional stage is in the graph if its list `run` contains this word: dvc.yaml makes one stage
# for each item, and so no stage for an empty list.
Run = Annotated[list[Literal["asked"]], Field(max_length=1)]
RUN = "`[asked]` adds the stage to the pipeline"


class LearningCurveParams(Section):
    """The learning curve: accuracy for growing numbers of examples per class."""

    run: Run = setting([], RUN)
    draws: Annotated[int, Field(ge=1, le=1000)] = setting(
        5, "number of random training subsets of each size"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = setting(
        0.95, "confidence level of the intervals"
    )


class RankParams(Section):
    """Comparison of backbones with a linear probe on your examples."""

    run: Run = setting([], RUN)
    backbones: Annotated[list[Candidate], Field(min_length=1)] = setting(
        [
            "efficientnet_lite0",
            "efficientnet_lite1",
            "efficientnet_lite2",
            "random:efficientnet_lite0",
        ],
        "backbones to compare; `random:NAME` is the network NAME with random weights",
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = setting(
        0.95, "confidence level of the intervals"
    )


class FinetuneParams(Section):
    """Fine-tuning of the backbone's last blocks, or of LoRA adapters, together with the head."""

    run: Run = setting([], RUN)
    method: Literal["blocks", "lora"] = setting(
        "blocks",
        "what to train together with the head: the last `blocks`, or `lora` adapters in all"
        " attention layers. `lora` works only for texts (docs/text.md)",
    )
    blocks: Annotated[int, Field(ge=1)] = setting(
        3, "number of the backbone's last blocks to train"
    )
    lora_rank: Annotated[int, Field(ge=1, le=384)] = setting(8, "rank of the LoRA adapters")
    epochs: Annotated[int, Field(ge=1, le=100_000)] = setting(
        10, "number of epochs; each epoch uses every training example once, with new augmentation"
    )
    batch_size: Annotated[int, Field(ge=1)] = setting(32, "number of examples per batch")
    learning_rate: Positive = setting(0.00003, "learning rate for the head and the LoRA adapters")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = setting(
        0.7,
        "ratio of a block's learning rate to that of the next block; for the last block, to that"
        " of the head",
    )
    weight_decay: NotNegative = setting(0.01, "weight decay of AdamW")
    batch_norm: Literal["kept", "updated"] = setting(
        "kept",
        "batch normalisation statistics of the trained blocks: `kept` (as pretrained) or `updated`",
    )
    seed: Seed = setting(0, "random seed for the order of the examples and for the LoRA adapters")
    device: Device = setting("auto", "`auto`, `cpu` or `cuda`")


class FromScratchParams(Section):
    """Training of a network from random weights, with the epochs and batch size of `finetune`."""

    run: Run = setting([], RUN)
    learning_rate: Positive = setting(0.003, "learning rate for the whole network")


class AdaptParams(Section):
    """Adaptation of the head to a new domain, with unlabelled examples of this domain."""

    run: Run = setting([], RUN)
    method: Literal["auto", "coral"] = setting(
        "auto", "`coral`, or `auto`, which decides whether to use `coral` (docs/adapt.md)"
    )

    @field_validator("method", mode="before")
    @classmethod
    def _is_not_gone(cls, method: object) -> object:
        if method in ("prior_shift", "both"):
            raise ValueError("was removed (docs/adapt.md): set auto or coral")
        return method
