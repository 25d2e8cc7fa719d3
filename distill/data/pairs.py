"""From rows of a generation to a token table: sources, and targets with their end tokens."""

import json
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.data.hashing import hash_text
from distill.data.labels import Labels
from distill.data.rows import Row, Rows
from distill.data.table import TokenTable
from distill.data.tokenise import cached, key_of, within
from distill.errors import DataError
from distill.files import digest
from distill.types import IGNORED

_NO_LABELS: Labels = np.empty(0, np.int64)


@dataclass(frozen=True)
class TargetLimits:
    """What a model that writes can take."""

    max_length: int
    """Tokens of a source, special tokens included."""
    max_target_length: int
    """Tokens of a target, special tokens included."""
    vocab_size: int
    """Rows of the embedding matrix."""
    start: int | None
    """Token a decoder begins with; None for a decoder-only model, which reads source and target as one sequence."""


def tokenise_targets(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, limits: TargetLimits, cache: Path | None = None
) -> TokenTable:
    """Tokenise rows of a generation, sources and targets; pairs that are too long are left out and counted.

    Cut, a pair would teach to leave out what it no longer shows. Cache as in `tokenise`. Raise DataError for a row
    without a target, or where all are too long, ModelError for a token the model has no embedding for.
    """
    targets = rows.targets
    if None in targets:
        raise DataError(f"row {targets.index(None) + 1} has no target; a student learns from sources with targets")
    weights = b"" if rows.weights is None else rows.weights.tobytes()
    key = digest(key_of("targets", rows, _NO_LABELS, tokenizer, limits), json.dumps(targets), weights)
    return cached(cache, key, lambda: _paired(rows, tokenizer, limits))


def _paired(rows: Rows, tokenizer: PreTrainedTokenizerBase, limits: TargetLimits) -> TokenTable:
    sources, targets = _both(rows, tokenizer, joined=limits.start is None)
    keep = [
        len(source) <= limits.max_length and len(target) <= limits.max_target_length
        for source, target in zip(sources, targets, strict=True)
    ]
    if not any(keep):
        raise DataError(
            f"none of {len(rows)} pairs fits into {limits.max_length} tokens of source (task.max_length) and "
            f"{limits.max_target_length} of target (task.max_target_length)"
        )
    if limits.start is None:
        sources = [[*source, *target[:-1]] for source, target in zip(sources, targets, strict=True)]
    ids = np.fromiter(compress(map(_key, rows), keep), np.int64, sum(keep))
    written = TokenTable.of(compress(targets, keep), np.full(len(ids), IGNORED, np.int64), ids)
    table = TokenTable.of(compress(sources, keep), written.labels, ids)
    for tokens in (table.tokens, written.tokens):
        within(tokens, tokenizer.convert_ids_to_tokens, limits.vocab_size)
    left_out = len(keep) - len(ids)
    return replace(
        table,
        targets=written.tokens,
        target_offsets=written.offsets,
        weights=None if rows.weights is None else rows.weights[np.array(keep)],
        start=limits.start,
        notes={"pairs left out, too long": left_out} if left_out else {},
    )


def _key(row: Row) -> int:
    """Return the key of a pair: one source may have several targets, each with a teacher's opinion of its own."""
    return hash_text(str(row.id), row.target)


def _both(rows: Rows, tokenizer: PreTrainedTokenizerBase, *, joined: bool) -> tuple[list[list[int]], list[list[int]]]:
    """Return the tokens of sources and targets; a target ends with the end token."""
    texts = [row.text for row in rows]
    targets = [target or "" for target in rows.targets]
    if not joined:
        return tokenizer(texts)["input_ids"], tokenizer(text_target=targets)["input_ids"]
    written = tokenizer(targets, add_special_tokens=False)["input_ids"]
    return tokenizer(texts)["input_ids"], [[*ids, tokenizer.eos_token_id] for ids in written]
