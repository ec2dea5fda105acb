"""What a view of an example is drawn from: its key alone, so that no other example has a say."""

import hashlib


def units(key: str, count: int) -> list[float]:
    """Numbers from 0 to 1, at most eight, the same wherever the key is."""
    drawn = hashlib.blake2b(key.encode(), digest_size=8 * count).digest()
    return [int.from_bytes(drawn[i : i + 8], "big") / 2**64 for i in range(0, 8 * count, 8)]
