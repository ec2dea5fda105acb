"""The key of a vector: a hash of all that decides its numbers."""

import struct
from hashlib import blake2b


def view_key(digest: str, view: bytes, view_code: int, backbone_fingerprint: str) -> bytes:
    """The key of one view's feature vector: 16 bytes of BLAKE2b.

    Every field but the last has a fixed width, so that no two sets of fields are written alike:
    the code, the digest's 32 bytes, the view, and the fingerprint in UTF-8.

    Args:
        digest: SHA-256 of the example's bytes, 64 hex digits.
        view: the view in bytes, as its kind's `pack_view` gives it.
        view_code: the kind's; it changes when the same view comes to give another input.
        backbone_fingerprint: names the weights, preprocessing, engine and precision.

    Raises:
        ValueError: the digest is no SHA-256.
    """
    example = bytes.fromhex(digest)
    if len(digest) != 64 or len(example) != 32:
        raise ValueError(f"{digest!r} is not a SHA-256 in 64 hex digits")
    fields = struct.pack(">I32s", view_code, example) + view
    return blake2b(fields + backbone_fingerprint.encode(), digest_size=16).digest()
