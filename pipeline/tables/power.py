"""Power normalisation of features: one function, for all that read them."""

import numpy as np
import numpy.typing as npt


def raised(features: npt.NDArray[np.float32], power: float) -> npt.NDArray[np.float32]:
    """The features as a head sees them: `sign(x) |x|^power`, of any shape; 1 leaves them alone.

    It keeps a few strong features from drowning the others (Perronnin et al., ECCV 2010,
    section 3.2).
    """
    if power == 1:
        return features
    powers: npt.NDArray[np.float32] = np.sign(features) * np.power(np.abs(features), power)
    return powers
