"""The typed schema of `params.yaml`: validated as a whole, read section by section."""

from .machine import place, size
from .project import asked, check_file, stages_in
from .reading import (
    RENAMED,
    cluster_section,
    document_in,
    extract_section,
    load,
    store_section,
)
from .schema import (
    AUTO,
    Augmentation,
    ChecksParams,
    EvaluateParams,
    ExtractParams,
    FinetuneParams,
    IngestParams,
    Section,
    Share,
    Shares,
    TrainingExamples,
    TrainParams,
    setting,
)
from .whole import Params, adapts, later_stages_on_cuda, stages_that_need_validation

__all__ = [
    "AUTO",
    "RENAMED",
    "Augmentation",
    "ChecksParams",
    "EvaluateParams",
    "ExtractParams",
    "FinetuneParams",
    "IngestParams",
    "Params",
    "Section",
    "Share",
    "Shares",
    "TrainParams",
    "TrainingExamples",
    "adapts",
    "asked",
    "check_file",
    "cluster_section",
    "document_in",
    "extract_section",
    "later_stages_on_cuda",
    "load",
    "place",
    "setting",
    "size",
    "stages_in",
    "stages_that_need_validation",
    "store_section",
]

told = setting  # the old name, for plugins of kinds that were written then
