"""Random numbers for a view of an example, which depend on the key of the view alone."""

import hashlib


def units(key: str, count: int) -> list[float]:
    """Return `count` numbers from 0 to 1, at most eight, which depend on the key only."""
    drawn = hashlib.blake2b(key.encode(), digest_size=8 * count).digest()
    return [int.from_bytes(drawn[i : i + 8], "big") / 2**64 for i in range(0, 8 * count, 8)]
