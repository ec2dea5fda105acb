"""The store's folder and size limit, and the other caches in the folder."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..core import params
from ..core.errors import ParamsError, StoreError

# Exports and checkpoints, and unfinished ones as `replacing` names them; no other file is ours.
KEPT = re.compile(r"[0-9a-f]{64}\.(onnx|safetensors)(\.[0-9a-f]+\.partial)?")


def _chosen() -> str | None:
    """Return `HEADSTART_STORE`, else `store.folder` of `params.yaml`: a folder or an address."""
    chosen = os.environ.get("HEADSTART_STORE")
    if not chosen:
        return params.store_section().folder
    try:
        return params.place(chosen)
    except ValueError as error:
        value = "" if "://" in chosen else f" is {chosen!r}"  # an address may hold a secret
        raise ParamsError(f"HEADSTART_STORE{value}; {error}") from None


def default_address() -> str | None:
    """Return the address of the store, `s3://BUCKET/PREFIX`, or None if it is in a folder.

    Raises:
        ParamsError: the setting is neither an absolute path nor such an address.
    """
    chosen = _chosen()
    return chosen if chosen and chosen.startswith("s3://") else None


def default_place() -> str:
    """Return where the features are: `default_address`, or else `default_folder`."""
    return default_address() or str(default_folder())


def default_folder() -> Path:
    """Return the folder of the store: `HEADSTART_STORE`, else `store.folder` of `params.yaml`.

    The default is `headstart/features` in the user's cache folder, shared by all their clones. If
    the features are in a bucket, the default folder holds exports and checkpoints.

    Raises:
        ParamsError: the folder is relative, so every clone would have a different store.
    """
    chosen = _chosen()
    if chosen and not chosen.startswith("s3://"):
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "headstart" / "features"


def default_limit() -> int | None:
    """Return the limit in bytes: `HEADSTART_STORE_LIMIT`, else `store.limit` of `params.yaml`.

    None means no limit.

    Raises:
        ParamsError: the setting is neither `none` nor a size such as `500MB` or `20GB`.
    """
    chosen = os.environ.get("HEADSTART_STORE_LIMIT")
    if not chosen:
        return params.size(params.store_section().limit)
    try:
        return params.size(chosen)
    except ValueError as error:
        raise ParamsError(f"HEADSTART_STORE_LIMIT is {chosen!r}; {error}") from None


def backbones_folder() -> Path:
    """Return the folder of exported backbones, each an `.onnx` and a `.safetensors` file."""
    return default_folder() / "backbones"


def checkpoints_folder() -> Path:
    """Return the folder of checkpoints of unfinished training, each a `.safetensors` file."""
    return default_folder() / "checkpoints"


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary path; on success, rename it to `file`.

    Several threads and processes, even in different containers, may write the same file at once.

    Raises:
        StoreError: this user may not write to the folder of `file`.
        OSError: any other error of the system, such as a full disk; it names a file.
    """
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(file)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"{file.parent} cannot be written to ({error.strerror}): set store.folder in"
                " params.yaml, or HEADSTART_STORE, to another folder"
            ) from None
        error.filename = error.filename or str(file)  # else it names none
        raise
    finally:
        with contextlib.suppress(OSError):  # if the folder is not writable, there is no file
            unfinished.unlink()


def kept(folder: Path) -> list[Path]:
    """List the exports or checkpoints in a folder, and unfinished files of killed processes."""
    return [file for file in folder.glob("*") if KEPT.fullmatch(file.name)]
