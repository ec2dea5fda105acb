"""Random numbers that depend on a key alone, so that other examples do not change them."""

import hashlib


def unit(key: str) -> float:
    """Return a hash of the key as a number from 0 to 1."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
