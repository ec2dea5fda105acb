"""How a network is trained with its head."""

from dataclasses import dataclass

from ..core.params import FinetuneParams
from ..heads.head import Floats


@dataclass(frozen=True)
class Recipe:
    """How to train. `blocks` is how many of the last ones learn beside the head, None for all.

    A block's learning rate is `layer_decay` times that of the block above it, the head's is
    `learning_rate` (discriminative fine-tuning: Howard and Ruder, ACL 2018); all fall to 0 on a
    cosine. `batch_norm` is `kept` (the statistics stay those of the weights that were loaded) or
    `updated` (those of the blocks that learn follow the new examples). `class_weights` [c] weigh
    each class's examples in the losses, of validation too; of several labels they may be [c, 2], as
    `heads.losses` has them. `loss` is one of `heads.losses.LOSSES`. `last` ends the training after
    that epoch, with the learning rates of one that goes on to `epochs`; None is all of them. With
    the `method` lora no block learns but adapters of `lora_rank`, at the head's rate (`lora.py`).
    """

    blocks: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    layer_decay: float
    weight_decay: float
    batch_norm: str
    seed: int
    class_weights: tuple[float | tuple[float, float], ...]
    last: int | None = None
    loss: str = "softmax"
    method: str = "blocks"
    lora_rank: int = 8

    @classmethod
    def of(cls, settings: FinetuneParams, class_weights: Floats, loss: str = "softmax") -> "Recipe":
        """The recipe of the section `finetune`."""
        asked = settings.model_dump(exclude={"run", "device"})
        weights = [tuple(one) if isinstance(one, list) else one for one in class_weights.tolist()]
        return cls(**asked, class_weights=tuple(weights), loss=loss)
