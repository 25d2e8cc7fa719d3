"""From rows of a generation to a token table: sources, and targets with their end tokens."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
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
from distill.languages import encode_targets
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
    positions: float = math.inf
    """Tokens such a sequence may have."""

    def hold(self, source: Sequence[int], *targets: Sequence[int]) -> bool:
        """Whether a source, with each of several targets, is short enough."""
        longest = max(map(len, targets))
        whole = len(source) + longest - 1 if self.start is None else 0  # the end token is not read
        return len(source) <= self.max_length and longest <= self.max_target_length and whole <= self.positions


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
    answers = json.dumps([row.choices for row in rows]) if rows.have_choices else ""
    key = digest(key_of("targets", rows, _NO_LABELS, tokenizer, limits), json.dumps(targets), weights, answers)
    return cached(cache, key, lambda: _paired(rows, tokenizer, limits))


def _paired(rows: Rows, tokenizer: PreTrainedTokenizerBase, limits: TargetLimits) -> TokenTable:
    joined = limits.start is None
    sources, targets = tokenizer([row.text for row in rows])["input_ids"], _written(rows.targets, tokenizer, joined)
    wrong = _wrong(rows, tokenizer, joined) if rows.have_choices else [[] for _ in targets]
    keep = [
        limits.hold(source, target, *others) for source, target, others in zip(sources, targets, wrong, strict=True)
    ]
    if not any(keep):
        raise DataError(
            f"none of {len(rows)} pairs fits into {limits.max_length} tokens of source (task.max_length) and "
            f"{limits.max_target_length} of target (task.max_target_length){_both(limits)}"
        )
    if joined:
        sources = [[*source, *target[:-1]] for source, target in zip(sources, targets, strict=True)]
    ids = np.fromiter(compress(map(_key, rows), keep), np.int64, sum(keep))
    written = TokenTable.of(compress(targets, keep), np.full(len(ids), IGNORED, np.int64), ids)
    table = TokenTable.of(compress(sources, keep), written.labels, ids)
    answers = [*compress(wrong, keep)]
    every = TokenTable.of(chain.from_iterable(answers), written.labels, ids)
    for tokens in (table.tokens, written.tokens, every.tokens):
        within(tokens, tokenizer.convert_ids_to_tokens, limits.vocab_size)
    left_out = len(keep) - len(ids)
    if rows.have_choices:
        counts = np.cumsum([0, *map(len, answers)], dtype=np.int64)
        table = replace(table, wrong=every.tokens, wrong_offsets=every.offsets, wrong_rows=counts)
    return replace(
        table,
        targets=written.tokens,
        target_offsets=written.offsets,
        weights=None if rows.weights is None else rows.weights[np.array(keep)],
        start=limits.start,
        notes={"pairs left out, too long": left_out} if left_out else {},
    )


def _both(limits: TargetLimits) -> str:
    return "" if math.isinf(limits.positions) else f", both into {limits.positions} positions"


def _key(row: Row) -> int:
    """Return the key of a pair: one source may have several targets, each with a teacher's opinion of its own."""
    return hash_text(str(row.id), row.target)


def _written(texts: Sequence[str | None], tokenizer: PreTrainedTokenizerBase, joined: bool) -> list[list[int]]:
    """Return the tokens of targets, each with the end token; `joined` to their sources they have no other special."""
    given = [text or "" for text in texts]
    if not joined:
        return encode_targets(tokenizer, given)
    found = tokenizer(given, add_special_tokens=False)["input_ids"] if given else []
    return [[*ids, tokenizer.eos_token_id] for ids in found]


def _wrong(rows: Rows, tokenizer: PreTrainedTokenizerBase, joined: bool) -> list[list[list[int]]]:
    """Return the tokens of each row's wrong answers."""
    texts = [[answer for answer in row.choices or () if answer != row.target] for row in rows]
    known = list(dict.fromkeys(chain.from_iterable(texts)))
    tokens = dict(zip(known, _written(known, tokenizer, joined), strict=True))
    return [[tokens[answer] for answer in answers] for answers in texts]
