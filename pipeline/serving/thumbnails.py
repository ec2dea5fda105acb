"""Thumbnails of many examples, kept by content in the feature store."""

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
from PIL import Image

from .. import kinds
from ..core.errors import StoreError
from ..kinds import Shown, folder_of
from ..store.interface import Feature
from ..store.vectors import open_store
from .description import code_digest

QUALITY = 60
LONGEST = 300  # characters of a text


def thumbnails(
    name: str,
    examples: Iterable[tuple[str, str, str]],
    data: Callable[[str], bytes],
    side: int,
) -> dict[str, Shown]:
    """Return a thumbnail of each example by path; a text is shortened, and other media left out.

    If the store cannot be used, the function prints a warning and makes all of them.

    Args:
        examples: the path, digest and format of each example, as in the manifest.
        data: the function that returns the bytes of the example at a path.
    """
    kind = kinds.named(name)
    made_by = (
        f"packed thumbnail {code_digest(f'kinds/{folder_of(name)}')} {side} {LONGEST} {QUALITY}"
    )
    made_by += f" {kind.inspected_by()}"
    paths = {
        blake2b(f"{made_by} {kind.read_by(form)} {digest}".encode(), digest_size=16).digest(): path
        for path, digest, form in examples
    }
    kept: dict[bytes, Feature] = {}
    problem = None
    try:
        with open_store() as store:
            kept = store.get(list(paths))
    except StoreError as error:
        problem = error
    new = [key for key in paths if key not in kept]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        made = list(threads.map(lambda key: _shown(kind.show(data(paths[key]), side)), new))
    try:
        if new and not problem:
            with open_store() as store:
                store.put({key: _numbers(one) for key, one in zip(new, made, strict=True)})
    except StoreError as error:
        problem = error
    if problem:
        print(f"report: warning: thumbnails are made again next time: {problem}")
    found = {paths[key]: _read(numbers) for key, numbers in kept.items()}
    found |= {paths[key]: one for key, one in zip(new, made, strict=True)}
    return {path: found[path] for path in paths.values() if found[path].data}


def _shown(whole: Shown) -> Shown:
    if whole.media_type.startswith("image/"):
        made = io.BytesIO()  # a third of the bytes of a JPEG
        with Image.open(io.BytesIO(whole.data)) as picture:
            picture.convert("RGB").save(made, "WEBP", quality=QUALITY)
        return Shown("image/webp", made.getvalue())
    if whole.media_type == "text/plain":
        text = whole.data.decode(errors="replace")
        return Shown("text/plain", text[:LONGEST].encode())
    return Shown("text/plain", b"")


def _numbers(one: Shown) -> Feature:
    """Return a thumbnail as an entry of the store, four bytes in a number."""
    data = len(one.data).to_bytes(4, "little") + one.data + one.media_type.encode()
    return np.frombuffer(data.ljust(-(-len(data) // 4) * 4, b"\0"), np.float32)


def _read(numbers: Feature) -> Shown:
    data = numbers.tobytes()
    end = 4 + int.from_bytes(data[:4], "little")
    return Shown(data[end:].rstrip(b"\0").decode(), data[4:end])
