"""Power normalisation of features, for all code that reads them."""

import numpy as np
import numpy.typing as npt


def raised(features: npt.NDArray[np.float32], power: float) -> npt.NDArray[np.float32]:
    """Return `sign(x) |x|^power`, the input of heads, for features of any shape; 1 changes nothing.

    Power normalisation keeps a few large features from dominating the others (Perronnin et al.,
    ECCV 2010, section 3.2).
    """
    if power == 1:
        return features
    powers = np.abs(features)
    np.power(powers, power, out=powers)
    np.copysign(powers, features, out=powers)
    powers += 0  # turns -0 into 0
    return powers
