"""The recipe for training a network with its head."""

from dataclasses import dataclass

from ..core.params import FinetuneParams
from ..heads.head import Floats


@dataclass(frozen=True)
class Recipe:
    """The recipe; `blocks` is how many of the last blocks are trained with the head (None: all).

    The head's learning rate is `learning_rate`, and a block's rate is `layer_decay` times that of
    the block above it (discriminative fine-tuning: Howard and Ruder, ACL 2018). All rates decay to
    0 by a cosine schedule. If `batch_norm` is `kept`, the statistics of the loaded weights stay; if
    it is `updated`, the trained blocks update their statistics on the new examples. `class_weights`
    [c] weight the examples of each class in the losses, also in validation; in multi-label tasks,
    their shape may be [c, 2], as in `heads.losses`. `loss` is one of `heads.losses.LOSSES`. `last`
    ends the training after that epoch, with the learning rates of a run of `epochs` epochs; None
    means all epochs. With the `method` lora, adapters of `lora_rank` are trained instead of blocks,
    at the head's learning rate (`lora.py`).
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
        """Return the recipe of the section `finetune`."""
        asked = settings.model_dump(exclude={"run", "device"})
        weights = [tuple(one) if isinstance(one, list) else one for one in class_weights.tolist()]
        return cls(**asked, class_weights=tuple(weights), loss=loss)
