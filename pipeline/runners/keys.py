"""The keys of features in the store: a hash of all that a vector depends on."""

import struct
from collections.abc import Iterable
from hashlib import blake2b

from ..kinds import Kind, View


def view_keys(
    wanted: Iterable[tuple[str, View, str]], kind: Kind, *backbones_made_by: str
) -> list[list[bytes]]:
    """Return the keys of the feature vectors of views, a list for each backbone or layer.

    The key of an unaugmented example does not depend on the libraries for augmentation.

    Args:
        wanted: for each view the example's digest, the view and the example's format, as in
            `Kind.form` or the manifest.
        backbones_made_by: `made_by` of the engine, or that of each layer.
    """
    made_by: dict[tuple[bool, str], list[bytes]] = {}
    keys: list[list[bytes]] = [[] for _ in backbones_made_by]
    for digest, view, form in wanted:
        by = bool(view != kind.original), form
        if by not in made_by:
            libraries = [kind.views_made_by(by[0]), kind.read_by(form)]
            made_by[by] = [
                " ".join(filter(None, [one, *libraries])).encode() for one in backbones_made_by
            ]
        fields = _fields(digest, kind.pack_view(view), kind.view_code)
        for found, one in zip(keys, made_by[by], strict=True):
            found.append(blake2b(fields + one, digest_size=16).digest())
    return keys


def view_key(digest: str, view: bytes, view_code: int, backbone_fingerprint: str) -> bytes:
    """Return the key of one view's feature vector: 16 bytes of BLAKE2b.

    The hashed fields are the code, the digest's 32 bytes, the view, and the fingerprint in UTF-8.
    All but the last have a fixed width, so different fields never give the same bytes.

    Args:
        digest: SHA-256 of the example's bytes, 64 hex digits.
        view: the view in bytes, as returned by its kind's `pack_view`.
        view_code: `view_code` of the kind; raised when the same view gives a different input.
        backbone_fingerprint: identifies the weights, preprocessing, engine and precision.

    Raises:
        ValueError: the digest is not a SHA-256.
    """
    fields = _fields(digest, view, view_code)
    return blake2b(fields + backbone_fingerprint.encode(), digest_size=16).digest()


def _fields(digest: str, view: bytes, view_code: int) -> bytes:
    example = bytes.fromhex(digest)
    if len(digest) != 64 or len(example) != 32:
        raise ValueError(f"{digest!r} is not a SHA-256 in 64 hex digits")
    return struct.pack(">I32s", view_code, example) + view
