"""Files of packages that hold weights, found without importing the package."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from ..core import packages
from ..core.errors import WeightsError


def file_of(name: str, set_name: str, package: str, path: str, sha256: str) -> Path:
    """Return a file of a package, whose own code may need PyTorch.

    Args:
        name: the backbone, for the messages.
        set_name: the extra that has this one, a key of `packages.SETS`.
        path: of the file, from its module on.
        sha256: of the file's bytes.

    Raises:
        WeightsError: the package is not installed, or its file has changed.
    """
    module, _, rest = path.partition("/")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the weights of {name} are not installed: {packages.how_to_install(set_name)}"
        )
    file = Path(spec.origin).parent / rest
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        raise WeightsError(
            f"the package {package} is damaged or has a different version: {file} is missing or"
            f" is not the file that {name} needs; install it again"
        )
    return file
