"""Prediction with a bundle, for `predict`, `serve` and users' own scripts.

This module needs ONNX Runtime, NumPy, safetensors and the packages of the examples' kind, such as
Pillow for images. Preprocessing uses the same code as `extract`, so predictions are the same as in
`evaluate`.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..core.errors import DataError, RefusedError
from ..examples.files import digest, leads_out, load
from ..heads.head import load_head
from ..kinds import Shown, named
from ..tasks import TASKS
from . import answering, novelty
from .answering import Answer, Floats, Neighbour, Outputs
from .description import FILE, Bundle, document
from .explain import (
    STRENGTHS,
    TINY,
    class_map,
    directions,
    effects,
    falls,
    neighbours,
)

MOST_WINDOWS = 8  # of an example; with more, its inputs are computed one after the other
OLDER = "the bundle was made by an older version and has no digests"
# Kinds that show only decoded pictures or sounds, never the bytes of a file.
DECODED = ("image", "audio")


class Classifier:
    """A bundle in memory. Any number of threads may use it at once, each on one core."""

    def __init__(self, folder: Path, explains: bool = False, hands: int | None = None) -> None:
        """Open the bundle in `folder`.

        Args:
            explains: whether to read the data for heat maps and neighbours as well.
            hands: the number of threads that compute heat maps; None for one per core.

        Raises:
            DataError: the folder is not a bundle, is damaged, or has a different schema.
        """
        bundle = self.bundle = Bundle.read(folder)
        self.kind, self.task, sets = named(bundle.kind), bundle.head.task, bundle.head.sets
        thresholds = bundle.head.calibration.thresholds
        sets = None if sets is None or sets.why_none else sets
        self.outputs = Outputs(bundle.head.classes, thresholds, sets)
        self._answers = answering.of_task(self.task)
        self._session = _opened(folder / "model.onnx")
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        self._maps = [name for name in outputs if name.rpartition("/")[2].startswith("maps")]
        # Maps explain only what the last layer adds to a prediction.
        self.has_maps = len(self._maps) == len(bundle.inputs) and not bundle.head.layers
        given = [one.name for one in self._session.get_inputs()]
        if len(given) != len(bundle.inputs):
            raise DataError(
                f"{folder / 'model.onnx'} takes {len(given)} inputs, but bundle.json names"
                f" {len(bundle.inputs)}"
            )
        self._inputs = sorted(given, key=_number)
        self._output = TASKS[self.task].output
        if outputs.get(self._output) != [len(self.classes)]:
            raise DataError(
                f"{folder / 'model.onnx'} does not return {len(self.classes)} {self._output}"
            )
        # The pool starts a thread only if it needs one.
        self._hands = ThreadPoolExecutor(hands or os.cpu_count() or 1)
        dimension = bundle.head.compared(outputs.get("features", [0])[0])
        self._compared = dimension
        known = bundle.novelty
        self._detector = None if known is None else novelty.read(folder, known, dimension)
        self._folder = folder
        self._bank: Floats | None = None
        if explains:
            self.read_reasons()

    @property
    def classes(self) -> list[str]:
        """The names of the outputs: classes, labels or targets."""
        return self.outputs.names

    @property
    def explains(self) -> bool:
        """Whether heat maps are possible: the backbone has maps, or the kind can hide parts."""
        return self.has_maps or self.kind.hides

    @property
    def takes_counts(self) -> bool:
        """Whether the head takes term counts; needs `explains`."""
        return self._head.idf is not None

    @property
    def detects_novelty(self) -> bool:
        """Whether predictions include novelty detection."""
        return self._detector is not None

    @property
    def coverage(self) -> float | None:
        """The coverage of prediction sets or intervals; None without them."""
        return None if self.outputs.sets is None else self.outputs.sets.coverage

    def read_reasons(self) -> None:
        """Read the data for heat maps and neighbours, once.

        Raises:
            DataError: the data is damaged.
        """
        if self._bank is not None:
            return
        weights, file = self._folder / "head.safetensors", self._folder / FILE
        self._head, _ = load_head(weights, file, lambda _: self.bundle.head)
        bank = _read_bank(self._folder / "neighbours.safetensors")
        self.known = _read_known(self._folder / "neighbours.json", len(bank))
        self._bank = bank

    def training_example(self, number: int) -> bytes:
        """Return the bytes of a training example, if its file exists unchanged; needs `explains`.

        The paths come from the bundle, whose maker may be a stranger who wants to read other files.
        A file is therefore returned only if its digest equals the one in the bundle: nobody can
        know the digest of a secret without the secret. Older bundles have no digests. For them,
        hidden files, links that lead out of the folder, and kinds that would show a file's text are
        refused.

        Raises:
            RefusedError: there is no such number, or its file is not available; the message has
                the reason.
        """
        paths, digests = self.known["paths"], self.known.get("digests")
        if not 0 <= number < len(paths):
            raise RefusedError(
                f"there is no training example {number}; the bundle has {len(paths)}, numbered"
                " from 0"
            )
        path = Path(paths[number])
        if not path.parts:
            raise RefusedError("the bundle does not name the files of its training examples")
        if leads_out(path):
            raise RefusedError("its path leads out of the working directory")
        if digests is None and (
            self.bundle.kind not in DECODED
            or any(part.startswith(".") for part in path.parts)
            or not path.resolve().is_relative_to(Path.cwd().resolve())
        ):
            raise RefusedError(f"{OLDER}, so this file is not shown; run the stage bundle again")
        try:
            data = load(path, self.kind.most_bytes)
        except DataError:
            data = b""  # a stranger must not learn whether there is such a file
        if not data or (digests is not None and digest(data) != digests[number]):
            raise RefusedError(
                "its file does not exist, or is not the one that the bundle was made with"
            )
        return data

    @property
    def hides(self) -> bool:
        """Whether heat maps come from hiding parts rather than from the network's last maps."""
        return self.kind.hides and not (self.has_maps and self.kind.maps_first)

    def answer(
        self,
        data: bytes,
        heat: bool = False,
        neighbours: int = 0,
        side: int | None = None,
        seen: Floats | None = None,
    ) -> Answer:
        """Return the prediction for an example.

        Args:
            data: the bytes of its file, in any format of the kind.
            heat: whether to compute the heat map of `Answer.best`, or of the first target; needs
                `explains`.
            neighbours: the number of nearest training examples to find; needs `explains`.
            side: the side of a small heat map in pixels; None for the size of the backbone's input.
            seen: [1 + inputs, dimension], the features of the example and then those that the
                method `hidden` returns, if they are known: no network runs.

        Raises:
            RefusedError: the bytes are not accepted as an example, or its values are so large that
                there is no finite answer; the message has the reason.
        """
        maps = heat and self.has_maps and not self.hides
        with_features = neighbours > 0 or self.detects_novelty
        if seen is None:
            example = self._read(data)
            wanted = [self._output] + self._maps * maps + ["features"] * with_features
            got = dict(zip(wanted, self._session.run(wanted, example), strict=True))
        else:
            got = {self._output: self._from_features(seen[:1])[0], "features": seen[0]}
        output = got[self._output]
        if not np.isfinite(output).all():
            raise RefusedError("its values are too large for a prediction")
        answer = self._answers.answer(output, self.outputs)
        shown = None
        if maps:
            found = [got[name] for name in sorted(self._maps, key=_number)]
            map_of_best = class_map(found, self._head, self.bundle.head.power, answer.best)
            first = example[self._inputs[0]]
            shown = self.kind.explain(first, map_of_best, self.bundle.inputs[0], side)
        elif heat and self.hides:
            hidden = self.hidden(data) if seen is None else seen[1:]
            shown = self._by_hiding(data, hidden, output, answer.best, side)
        last = got["features"][: self._compared] if with_features else output
        nearest = self._nearest(last, neighbours) if neighbours else ()
        distance = unusual = None
        if self._detector is not None:
            distance = self._detector.distance(last)
            unusual = self._detector.unusual(distance)
        return replace(answer, heat=shown, neighbours=nearest, distance=distance, unusual=unusual)

    def hidden(self, data: bytes) -> Floats:
        """Return the features [inputs, dimension] of an example whose parts are hidden in turn."""
        hidden = [self.kind.hidden(data, prepared) for prepared in self.bundle.inputs]

        def features(of_each: tuple[npt.NDArray[Any], ...]) -> Floats:
            example = dict(zip(self._inputs, of_each, strict=True))
            found: Floats = self._session.run(["features"], example)[0]
            return found

        # All heat maps share the cores, and a single one can use them all. But many windows
        # take much memory, so the parts of a long sound are hidden one after the other.
        windows = len(hidden[0][0]) if self.kind.windowed else 1
        each = map if windows > MOST_WINDOWS else self._hands.map
        return np.stack(list(each(features, zip(*hidden, strict=True))))

    def _by_hiding(
        self, data: bytes, hidden: Floats, output: Floats, best: int, side: int | None
    ) -> Shown:
        """Return a heat map of the parts without which the class is less probable.

        In regression it shows the parts without which the target is smaller.
        """
        without = np.array([self._strength(one, best) for one in self._from_features(hidden)])
        hides = self.kind.hidden_together()
        before = self._strength(output, best)
        if not TASKS[self.task].probabilities:  # scale the target, which may have any unit
            largest = max(abs(before), float(np.abs(without).max(initial=0)), TINY)
            before, without = before / largest, without / largest
        weights = falls(before, without) if hides is None else effects(without, hides)
        return self.kind.explain_parts(data, self.bundle.inputs[0], weights, side)

    def _from_features(self, features: Floats) -> Floats:
        """Return what the graph returns for features [n, dimension] of its own."""
        head = replace(self._head, idf=None)  # the graph has weighted counts already
        temperature = self.bundle.head.calibration.temperature
        return head.answers(features, temperature, self.task).astype(np.float32)

    def _strength(self, output: Floats, position: int) -> float:
        """Return the log-odds of the class at a position, or the target itself."""
        return STRENGTHS[TASKS[self.task].activation](output, position)

    def features(self, data: bytes) -> Floats:
        """Return the features [dimension] of an example, as the head expects them.

        Raises:
            RefusedError: as for `answer`.
        """
        features: Floats = self._session.run(["features"], self._read(data))[0]
        return features

    def _read(self, data: bytes) -> dict[str, npt.NDArray[Any]]:
        """Return the inputs of the graph for an example, with the preprocessing of each network."""
        inputs = zip(self._inputs, self.bundle.inputs, strict=True)
        return {name: self.kind.read(data, prepared) for name, prepared in inputs}

    def _nearest(self, features: Floats, k: int) -> tuple[Neighbour, ...]:
        assert self._bank is not None  # noqa: S101 (`read_reasons` was called)
        positions, cosines = neighbours(directions(features[None]), self._bank, k)
        paths, labels = self.known["paths"], self.known["labels"]
        return tuple(
            Neighbour(paths[position], labels[position], float(cosine), int(position))
            for position, cosine in zip(positions[0], cosines[0], strict=True)
        )


def _opened(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # the exception says it all
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each way a file can be damaged
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{file} cannot be opened: {reason}") from None


def _number(name: str) -> int:
    """Return the number, from 1, of the joined network that an input or output belongs to."""
    found = re.match(r"network_(\d+)/", name)
    return int(found[1]) if found else 1


def _read_bank(file: Path) -> Floats:
    try:
        features = load_file(file)["features"].astype(np.float32)
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if features.ndim != 2:
        raise DataError(f"{file} is damaged: its features are not a two-dimensional array")
    return features


def _read_known(file: Path, examples: int) -> dict[str, list[str]]:
    """Read paths, labels and digests of training examples; older bundles have no digests."""
    known = document(file)
    for name in ("paths", "labels", *["digests"] * ("digests" in known)):
        texts = known.get(name)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{file} is damaged: {name} is not a list of strings")
        if len(texts) != examples:
            raise DataError(
                f"{file} is damaged: it has {len(texts)} {name} for {examples} examples"
            )
    return known
