"""What is drawn from a key alone, so that no other example has a say."""

import hashlib


def unit(key: str) -> float:
    """A number from 0 to 1, the same wherever the key is."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
