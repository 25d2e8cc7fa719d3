"""From sentences whose words have a class each to a token table: the first token of a word carries its class."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from distill.data.hashing import hash_text
from distill.data.labels import encode_tags
from distill.data.rows import Rows
from distill.data.table import TokenTable
from distill.data.tokenise import Ids, Limits, cached, encoded, frame, key_of, plain, room, within
from distill.files import digest
from distill.types import IGNORED

Classes = NDArray[np.int64]


def tokenise_words(
    rows: Rows, names: Sequence[str], tokenizer: PreTrainedTokenizerFast, limits: Limits, cache: Path | None = None
) -> TokenTable:
    """Tokenise sentences; `names` are the classes in the order of the outputs.

    A sentence that is too long becomes several rows, cut before a word: none of its words is lost. How many there are
    is in the notes, and so are words that no token belongs to. Cache and errors as in `tokenise`.
    """
    none = np.full(len(rows), IGNORED, dtype=np.int64)
    key = digest(key_of("words", rows, none, tokenizer, limits), json.dumps([rows.tags, list(names)]))
    return cached(cache, key, lambda: _tokenised(rows, encode_tags(rows, names), tokenizer, limits))


@dataclass(frozen=True)
class _Part:
    """A sentence, or a part of one that is too long."""

    tokens: Ids
    tags: Classes
    key: int


def _tokenised(
    rows: Rows, classes: Sequence[Classes], tokenizer: PreTrainedTokenizerFast, limits: Limits
) -> TokenTable:
    core = plain(tokenizer)
    size = room(core, limits, pairs=False)
    before, after = frame(core)
    parts: list[_Part] = []
    split = lost = 0
    for words, found, own, key in zip(_words(rows), _encodings(rows, core), classes, rows.ids, strict=True):
        tags = _first_tokens(found, words, own)
        pieces = list(_parts(np.array(found.ids, np.int32), tags, int(key), size))
        split += len(pieces) > 1
        lost += len(own) - int((tags != IGNORED).sum())
        parts += pieces
    ends = (np.full(len(before), IGNORED), np.full(len(after), IGNORED))
    tokens = [np.concatenate([before, part.tokens, after]) for part in parts]
    notes = {f"sentences split to fit {limits.max_length} tokens": split, "words without a token": lost}
    table = TokenTable(
        tokens=np.concatenate([np.empty(0, np.int32), *tokens]),
        offsets=np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        labels=np.full(len(parts), IGNORED, dtype=np.int64),
        example_ids=np.fromiter((part.key for part in parts), np.int64, len(parts)),
        tags=np.concatenate([np.empty(0, np.int64), *(np.concatenate([ends[0], p.tags, ends[1]]) for p in parts)]),
        notes={what: count for what, count in notes.items() if count},
    )
    within(table.tokens, core.id_to_token, limits.vocab_size)
    return table


def _words(rows: Rows) -> Iterator[list[str]]:
    return (row.words or [] for row in rows)


def _encodings(rows: Rows, core: Tokenizer) -> Iterator[Encoding]:
    """Tokenise whole sentences: so a word has the tokens it has in running text, the mark of a blank included."""
    return (found for batch in encoded(rows, core, specials=False) for found in batch)


def _first_tokens(found: Encoding, words: Sequence[str], classes: Classes) -> Classes:
    """Return the class of each word at its first token, IGNORED elsewhere; a blank before a word is part of it."""
    tags = np.full(len(found.ids), IGNORED, dtype=np.int64)
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))
    word = 0
    for token, (begin, end) in enumerate(found.offsets):
        while word < len(words) and starts[word + 1] - 1 <= begin:
            word += 1  # it has no token
        if word < len(words) and end >= starts[word]:
            tags[token] = classes[word]
            word += 1
    return tags


def _parts(tokens: Ids, tags: Classes, key: int, size: int) -> Iterator[_Part]:
    """Cut a sentence before words, so that each part has `size` tokens at most."""
    cuts, start = [0], 0
    while len(tokens) - start > size:
        words = np.flatnonzero(tags[start + 1 : start + size + 1] != IGNORED)
        start += int(words[-1]) + 1 if len(words) else size  # inside of a word that is longer than a row
        cuts.append(start)
    for number, (begin, end) in enumerate(pairwise([*cuts, len(tokens)])):
        own = key if number == 0 else hash_text(str(key), str(number))
        yield _Part(tokens[begin:end], tags[begin:end], own)
