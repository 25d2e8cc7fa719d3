"""Hashes that stay the same on every machine, in every version: of texts, and of numbers."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def hash_text(*parts: str | None) -> int:
    """Return 63 bits of BLAKE2 over the parts, each with its length; a part that is None differs from an empty one.

    Raise UnicodeEncodeError for a text with a lone surrogate.
    """
    total = blake2b(digest_size=8)
    for part in parts:
        raw = b"" if part is None else part.encode()
        total.update((len(raw) if part is not None else -1).to_bytes(8, "little", signed=True))
        total.update(raw)
    return int.from_bytes(total.digest(), "little") >> 1


def hash_tokens(tokens: NDArray[np.int32]) -> int:
    """Return 63 bits of BLAKE2 over token ids."""
    raw = tokens.astype("<i4").tobytes()
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little") >> 1


def mix(numbers: Hashes) -> Hashes:
    """Return SplitMix64's finaliser (Steele, Lea and Flood 2014) of each number: a bijection whose bits look random."""
    mixed = numbers + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


def fractions(numbers: Hashes) -> NDArray[np.float64]:
    """Return the numbers, mixed, as fractions in [0, 1)."""
    return (mix(numbers) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
