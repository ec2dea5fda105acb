"""Prior shift: the same classes in other shares, found from examples without labels.

The shares are found by expectation maximisation (Saerens, Latinne and Decaestecker, "Adjusting the
outputs of a classifier to new a priori probabilities", Neural Computation 14, 2002), from the
calibrated probabilities of a head. Where they change, the answer to an example changes by the ratio
of new and old shares, which is a constant of each class: the bias takes it in.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

STEPS = 1000
CLOSE = 1e-6  # largest change of a share in a step, at which no more is made


def shares(probabilities: Doubles, source: Doubles) -> Doubles:
    """The shares [c] of the classes among the examples that the probabilities are of.

    One example of each class is thought to have been seen beside them, in the shares of the source
    (a Dirichlet prior): no class is lost for being rare, and few examples change little.

    Args:
        probabilities: [n, c], calibrated.
        source: the shares [c] among the examples that the head has learned from, adding up to 1.
    """
    classes = len(source)
    found = source.copy()
    for _ in range(STEPS):
        of_each = probabilities * (found / source)
        of_each /= of_each.sum(axis=1, keepdims=True)
        before = found
        found = (of_each.sum(axis=0) + classes * source) / (len(of_each) + classes)
        if np.abs(found - before).max() < CLOSE:
            break
    return found
