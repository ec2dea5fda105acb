"""What every user of a GPU shares: a CUDA stream for each thread, words for a lack of memory."""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes seconds to import, and most stages need none of it
    import torch

NO_MEMORY = (
    "GPU memory does not suffice for one example; free some of it or set extract.device: cpu"
)

_local = threading.local()


def own_stream() -> "torch.cuda.Stream":
    """The calling thread's stream, so that one's decoding overlaps another's reading."""
    import torch

    if not hasattr(_local, "stream"):
        _local.stream = torch.cuda.Stream()
    stream: torch.cuda.Stream = _local.stream
    return stream
