"""Tokens that are hidden to be found (Devlin et al. 2019, section 3.1): new ones in every step, the same on every rank.

Which tokens of a row are hidden is a function of seed, step and the row's key: a training that goes on after a cut, or
that is split otherwise, hides the same ones, and no generator has a state to be saved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from distill.data.hashing import Hashes, fractions, hash_text, mix
from distill.errors import ModelError
from distill.types import IGNORED

Ids = NDArray[np.int64]

RATE = 0.15
"""Part of a row's tokens that is hidden; of a row with any, one at least."""
MASKED = 0.8
"""Part of them that becomes the mask token."""
REPLACED = 0.1
"""Part of them that becomes any other token; the rest stays as it is."""


@dataclass(frozen=True, eq=False)
class Masking:
    """Hides tokens."""

    mask_id: int
    special: Ids
    """Tokens that are never hidden."""
    ordinary: Ids
    """Tokens that may stand in a hidden one's place."""

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase, where: str) -> "Masking":
        """Take what a tokenizer says of its vocabulary. Raise ModelError where it has no mask token."""
        if tokenizer.mask_token_id is None:
            raise ModelError(f"{where}: the tokenizer of {tokenizer.name_or_path} has no mask token")
        special = np.array(sorted(tokenizer.all_special_ids), np.int64)
        return Masking(tokenizer.mask_token_id, special, np.setdiff1d(np.arange(len(tokenizer)), special))

    def sizes(self, tokens: NDArray[np.int32], offsets: Ids) -> Ids:
        """Return how many tokens of each row are hidden, [N]: a fixed number, so that a window's count is known."""
        return _part(sums(~np.isin(tokens, self.special), offsets))

    def hide(self, ids: Ids, mask: NDArray[np.bool_], keys: Ids, draw: tuple[int, int]) -> tuple[Ids, Ids]:
        """Return ids [B T] with tokens hidden, and those that were there as labels [B T], IGNORED elsewhere.

        keys: those of the rows [B]. draw: seed and step.
        """
        choice, fate, other = _noise(keys, ids.shape[1], draw)
        open_ = mask & ~np.isin(ids, self.special)
        places = np.argsort(np.argsort(np.where(open_, choice, 2.0), axis=1), axis=1)
        hidden = places < _part(open_.sum(1))[:, None]
        replaced = self.ordinary[(other * len(self.ordinary)).astype(np.int64)]
        shown = np.where(fate < MASKED, self.mask_id, np.where(fate < MASKED + REPLACED, replaced, ids))
        return np.where(hidden, shown, ids), np.where(hidden, ids, IGNORED)


def sums(flags: NDArray[np.bool_], offsets: Ids) -> Ids:
    """Return how many flags are set in each row, [N]."""
    before = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    return np.asarray(before[offsets[1:]] - before[offsets[:-1]])


def _part(counts: Ids) -> Ids:
    """Return how many of so many tokens are hidden."""
    return np.asarray(np.minimum(counts, np.maximum(1, np.rint(RATE * counts).astype(np.int64))))


def _noise(keys: Ids, width: int, draw: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Return three numbers in [0, 1) for each position, [B T] each."""
    start = np.array([hash_text(*map(str, draw))], np.uint64)
    rows: Hashes = mix(keys.astype(np.uint64) ^ start)
    places: Hashes = mix(np.add(rows[:, None], np.arange(width, dtype=np.uint64)))
    return [fractions(places + np.uint64(number)) for number in range(3)]
