"""All of `params.yaml`: its sections, and the rules that involve several sections."""

import json

from pydantic import SerializeAsAny, model_validator

from ...tasks import TASKS
from .machine import ClusterParams, StoreParams
from .schema import (
    AdaptParams,
    Augmentation,
    BundleParams,
    ChecksParams,
    EvaluateParams,
    ExtractParams,
    FinetuneParams,
    FromScratchParams,
    IngestParams,
    LearningCurveParams,
    RankParams,
    ReportParams,
    Section,
    TrainParams,
)


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
                continue  # not a parameter
            settings: Section = getattr(self, section)
            given, default = getattr(settings, field), type(settings).model_fields[field].default
            each = given if isinstance(given, list) else [given]
            if any(str(one) == value if value else one != default for one in each):
                raise ValueError(
                    f"{name} is {given}, which does not apply to ingest.task {self.ingest.task};"
                    f" set it to {json.dumps(default)}"
                )
        return self

    @model_validator(mode="after")
    def _solve_the_loss(self) -> "Params":
        if self.train.loss == "huber" and "ridge" in self.train.optimizers():
            raise ValueError(
                "train.optimizer ridge minimises only the squared loss, but train.loss is huber;"
                " use another optimizer, such as lbfgs"
            )
        return self

    @model_validator(mode="after")
    def _have_the_layers(self) -> "Params":
        has_blocks = self.extract.blocks == "all" and self.extract.network.has_blocks
        if self.train.layers == "last" or (self.train.layers == "auto" and not has_blocks):
            return self
        if self.extract.blocks != "all":
            raise ValueError(
                f"train.layers is {self.train.layers}, but extract.blocks is last: set"
                " extract.blocks to all, or train.layers to last"
            )
        if not self.extract.network.has_blocks:
            raise ValueError(
                f"train.layers is {self.train.layers}, but extract.backbone"
                f" {self.extract.backbone} has no inner blocks: set train.layers to last"
            )
        for name in ONLY_LAST:
            if getattr(self, name).run:
                raise ValueError(
                    f"train.layers is {self.train.layers}, but the stage {name} works only with"
                    f" the last layer: set train.layers to last, or {name}.run to []"
                )
        return self


ONLY_LAST = ("finetune", "adapt")  # optional stages that do not work with inner blocks
NEED_VALIDATION = ("learning_curve", "finetune", "from_scratch", "adapt")


def stages_that_need_validation(settings: Params) -> list[str]:
    """Return the stages in the graph that need validation examples.

    This is for a check that changes no output. The stage that checks does not declare the
    parameters that are read here, because the stages that need the examples check again.
    """
    optional = [name for name in NEED_VALIDATION if getattr(settings, name).run]
    train = settings.train
    return ["train"] * (train.heads() > 1 and not train.cross_validates) + optional


def adapts(settings: Params) -> bool:
    """Return whether the stage adapt is in the graph.

    This is for a check that changes no output, as in `stages_that_need_validation`.
    """
    return bool(settings.adapt.run)


def later_stages_on_cuda(settings: Params) -> list[str]:
    """Return the parameters of stages after `extract` that request CUDA.

    This is for a check that changes no output, as in `stages_that_need_validation`.
    """
    devices = {"train.device": settings.train.device}
    if settings.finetune.run or settings.from_scratch.run:
        devices["finetune.device"] = settings.finetune.device
    return [name for name, device in devices.items() if device == "cuda"]
