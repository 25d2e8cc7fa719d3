"""Parts of a source by a hash of the rows' content: the same rows in any order of reading, duplicates on one side."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from distill.data.hashing import Hashes, fractions, hash_text, mix
from distill.data.rows import Rows
from distill.errors import DataError


def contents(rows: Rows) -> Hashes:
    """Return a hash of each row's text and pair, [N]."""
    return np.fromiter((hash_text(row.text, row.pair) for row in rows), np.uint64, len(rows))


def limit(rows: Rows, count: int) -> Rows:
    """Keep `count` rows, those with the smallest hashes, in their order."""
    if len(rows) <= count:
        return rows
    keep = np.zeros(len(rows), dtype=np.bool_)
    keep[np.argsort(mix(contents(rows)), kind="stable")[:count]] = True
    return rows.take(keep)


def held_out(rows: Rows, name: str, shares: Mapping[str, float], salt: tuple[int, str]) -> Rows:
    """Return the rows that `name` holds out.

    `shares` are the fractions of all that hold out of this source, in order: their parts never meet. `salt` is the
    run's seed and the source's name. Raise DataError where nothing is left, or nothing falls into the part.
    """
    names = list(shares)
    held = rows.take(_owners(rows, shares, salt) == names.index(name))
    if len(held) == 0:
        raise DataError(f"none of {len(rows)} rows falls into a fraction of {shares[name]:g}")
    return held


def remainder(rows: Rows, shares: Mapping[str, float], salt: tuple[int, str]) -> Rows:
    """Return the rows that nobody holds out. Raise DataError where none is left."""
    if not shares:
        return rows
    rest = rows.take(_owners(rows, shares, salt) == len(shares))
    if len(rest) == 0:
        raise DataError(f"no row is left: {', '.join(shares)} hold out all {len(rows)}")
    return rest


def overlap(first: Rows, second: Rows) -> int:
    """Count the rows of `second` whose content is in `first` as well."""
    return int(np.isin(contents(second), contents(first)).sum())


def _owners(rows: Rows, shares: Mapping[str, float], salt: tuple[int, str]) -> NDArray[np.int64]:
    """Return for each row the number of the part it falls into; len(shares) is the remainder."""
    bounds = np.cumsum(list(shares.values()))
    if bounds[-1] >= 1.0:
        raise DataError(f"{', '.join(shares)} hold out {bounds[-1]:.0%} together; something has to remain")
    salted = mix(contents(rows)) ^ np.uint64(hash_text("held out", str(salt[0]), salt[1]))
    return np.searchsorted(bounds, fractions(salted), side="right").astype(np.int64)
