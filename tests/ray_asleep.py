"""Workers that sleep as long as a GPU would compute, for `benchmarks/on_ray.py`."""

import os
import sys
import time
from collections import deque
from typing import Any

import pandas as pd

from pipeline.runners import on_ray


class Sleeper:
    """A worker that takes its time, and none of the processor's."""

    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds

    def open(self) -> on_ray.Answer:
        return on_ray.Answer(os.getpid())

    def compute(self, network: int, piece: pd.DataFrame) -> on_ray.Answer:
        time.sleep(self.seconds)
        return on_ray.Answer(os.getpid(), len(piece))

    def pulse(self) -> None:
        pass

    def close(self) -> None:
        pass


class Narrow:
    """Ray, where one node alone has slots, and so many of them."""

    def __init__(self, ray: Any, most: int) -> None:
        self.ray, self.most = ray, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ray, name)

    def nodes(self) -> list[dict[str, Any]]:
        found = self.ray.nodes()
        for node in found:
            node["Resources"]["CPU"] = self.most if node["Resources"].get("CPU", 0) > 1 else 0
        return list(found)


class Together(on_ray._Run):
    """Nothing is handed out before all workers are open."""

    began = 0.0
    most = 0

    def _hand_out(self) -> None:
        if self.began or sum(one.opening is None for one in self._hired) == self.most:
            self.began = self.began or time.monotonic()
            super()._hand_out()


class Uncounted:
    """No progress."""

    last = 0.0

    def advance(self, count: int) -> None:
        self.last = time.monotonic()


def main(address: str, workers: int, pieces: int, seconds: float) -> None:
    on_ray.Worker = Sleeper  # type: ignore[assignment, misc]
    rows = pd.DataFrame({"path": ["a.jpg"] * 32})
    waiting = deque(on_ray._Piece(0, rows) for _ in range(pieces * workers))
    with on_ray._joined(address) as ray:
        progress: Any = Uncounted()
        order: Any = seconds
        run = Together(Narrow(ray, workers), order, False, waiting, progress, address)
        run.most = workers
        run.to_its_end()
    print(progress.last - run.began)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
