"""Features of examples, whole and with parts hidden, for the report's heat maps.

They depend on the network but not on the head. The feature store keeps them, so that the maps of a
new head take only a moment. The bundle's training examples are not needed.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version

import numpy as np

from ..core.errors import StoreError
from ..kinds import folder_of
from ..runners.keys import view_keys
from ..store.vectors import open_store
from .classifier import Classifier
from .description import code_digest
from .explain import Floats


def hidden_features(
    classifier: Classifier, examples: Iterable[tuple[str, str, str]], data: Callable[[str], bytes]
) -> dict[str, Floats]:
    """Return the argument `seen` of `Classifier.answer` by path, for examples with heat maps.

    If the store cannot be used, the function prints a warning and computes all features.

    Args:
        examples: the path, digest and format of each example, as in the manifest.
        data: the function that returns the bytes of the example at a path.
    """
    chosen = list(examples)
    if not classifier.hides or classifier.takes_counts:
        return {}  # features of term counts are quick to compute, and too wide to store
    wanted = [(digest, classifier.kind.original, form) for _, digest, form in chosen]
    (keys,) = view_keys(wanted, classifier.kind, _made_by(classifier))
    dimension, problem = classifier.bundle.backbone.dimension, None
    found: dict[bytes, Floats] = {}
    try:
        with open_store() as store:
            found = store.get(keys)
    except StoreError as error:
        problem = error
    paths = dict(zip(keys, (path for path, _, _ in chosen), strict=True))

    def features(path: str) -> Floats:
        return np.stack([classifier.features(data(path)), *classifier.hidden(data(path))])

    new = {key: features(path) for key, path in paths.items() if key not in found}
    try:
        if new and not problem:
            with open_store() as store:
                store.put({key: rows.ravel() for key, rows in new.items()})
    except StoreError as error:
        problem = error
    if problem:
        print(
            "report: warning: new heat maps are not kept, so the next run computes them again:"
            f" {problem}"
        )
    return {path: (found | new)[key].reshape(-1, dimension) for key, path in paths.items()}


def _made_by(classifier: Classifier) -> str:
    """Return a text that changes with all that could change the features, except the examples."""
    bundle, runtime = classifier.bundle, f"onnxruntime {version('onnxruntime')}"
    made: tuple[object, ...] = (bundle.kind, bundle.inputs, bundle.head.power)
    made += (sorted(bundle.code.items()), *bundle.head.layers)
    code = code_digest(f"kinds/{folder_of(bundle.kind)}")
    return f"seen {code} {made} {bundle.backbone.fingerprint} {runtime}"
