"""From rows of text to a token table: cut to a length, or packed to it."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distill.data.hashing import hash_tokens
from distill.data.labels import Labels
from distill.data.rows import Rows
from distill.data.table import TokenTable
from distill.errors import DataError, ModelError
from distill.files import digest, digest_file
from distill.languages import told_target
from distill.types import IGNORED

Ids = NDArray[np.int32]

_BATCH = 8192
"""Rows tokenised at once: enough for all cores, little in memory."""


@dataclass(frozen=True)
class Limits:
    """What a model can take."""

    max_length: int
    """Tokens of a row, special tokens included."""
    vocab_size: int
    """Rows of the embedding matrix."""


def tokenise(
    rows: Rows, labels: Labels, tokenizer: PreTrainedTokenizerFast, limits: Limits, cache: Path | None = None
) -> TokenTable:
    """Tokenise rows, the longer text of a pair cut first; how many were cut is in the notes.

    With a `cache` folder the result is kept there under a digest of rows, labels, tokenizer and limits, and mapped
    from there the next time; a damaged copy is built anew. Raise DataError for a row without tokens or a limit that
    leaves room for none, ModelError for a token the model has no embedding for.
    """

    def build() -> TokenTable:
        return _tokenised(rows, labels, _cutting(tokenizer, limits, pairs=rows.has_pairs), limits)

    return cached(cache, key_of("rows", rows, labels, tokenizer, limits), build)


def pack(rows: Rows, tokenizer: PreTrainedTokenizerFast, limits: Limits, cache: Path | None = None) -> TokenTable:
    """Make pieces of nearly full length of plain text: lines of one file are joined while they fit, longer ones cut.

    Rows that are not lines of a file are documents of their own. Each piece carries the special tokens of a single
    text, no label, and a hash of its tokens as id. Cache and errors as in `tokenise`.
    """
    labels = np.full(len(rows), IGNORED, dtype=np.int64)
    return cached(cache, key_of("packed", rows, labels, tokenizer, limits), lambda: _packed(rows, tokenizer, limits))


def plain(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return a copy of a tokenizer's core that neither cuts nor pads; the original keeps its state."""
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    core.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens  # what the string does not carry
    core.no_padding()
    core.no_truncation()
    return core


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of all that decides which tokens a text becomes."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        with TemporaryDirectory() as folder:  # Marian's keeps its two SentencePiece models in files of their own
            written = sorted(Path(path) for path in tokenizer.save_pretrained(folder) if Path(path).is_file())
            return digest(*(f"{path.name}:{digest_file(path)}" for path in written))
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core.pop("truncation")
    core.pop("padding")
    languages = filter(None, [told_target(tokenizer)])  # the source's is in the core
    return digest(json.dumps(core, sort_keys=True), tokenizer.truncation_side, *languages)


def cached(cache: Path | None, key: str, build: Callable[[], TokenTable]) -> TokenTable:
    """Return the table kept under a key in a folder, if there is one, else what `build` makes, which is kept there.

    Of several processes that want it at once, one builds it.
    """
    if cache is None:
        return build()
    found = TokenTable.load(cache / key)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{key}.lock"):
        return _made(cache / key, build)


def _made(folder: Path, build: Callable[[], TokenTable]) -> TokenTable:
    found = TokenTable.load(folder)
    if found is not None:  # another process was faster
        return found
    damaged = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    build().save(folder)
    found = TokenTable.load(folder)
    if found is None:
        raise DataError(f"{folder}: what was just written cannot be read back; is the disk full or failing?")
    return replace(found, notes={**found.notes, "damaged caches rebuilt": 1}) if damaged else found


def key_of(kind: str, rows: Rows, labels: Labels, tokenizer: PreTrainedTokenizerBase, limits: object) -> str:
    """Return a digest of all that decides a table of tokens."""
    documents = np.array(rows.documents, dtype=np.int32)
    arrays = (rows.ids.tobytes(), str(labels.dtype), labels.tobytes(), documents.tobytes())
    return digest(kind, *arrays, tokenizer_digest(tokenizer), repr(limits))


def _cutting(tokenizer: PreTrainedTokenizerFast, limits: Limits, *, pairs: bool) -> Tokenizer:
    core = plain(tokenizer)
    room(core, limits, pairs=pairs)
    core.enable_truncation(limits.max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    return core


def room(core: Tokenizer, limits: Limits, *, pairs: bool) -> int:
    """Return how many tokens of text fit beside the special ones."""
    special = core.num_special_tokens_to_add(pairs)
    needed = special + (2 if pairs else 1)
    if limits.max_length < needed:
        raise DataError(
            f"task.max_length: {limits.max_length} leaves no room beside {special} special tokens; at least {needed}"
        )
    return limits.max_length - special


def _tokenised(rows: Rows, labels: Labels, core: Tokenizer, limits: Limits) -> TokenTable:
    tokens: list[Ids] = []
    types: list[NDArray[np.uint8]] = []
    lengths: list[int] = []
    cut = 0
    for batch in encoded(rows, core, specials=True):
        tokens.append(_flat(batch))
        lengths += map(len, batch)
        cut += sum(1 for encoding in batch if encoding.overflowing)
        if rows.has_pairs:
            types.append(np.fromiter(chain.from_iterable(e.type_ids for e in batch), np.uint8, len(tokens[-1])))
    table = TokenTable(
        tokens=_checked(np.concatenate([np.empty(0, np.int32), *tokens]), core, limits),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        labels=labels,
        example_ids=rows.ids,
        type_ids=np.concatenate(types) if types else None,
        notes={f"rows cut to {limits.max_length} tokens": cut} if cut else {},
    )
    if 0 in lengths:
        empty = rows.part(lengths.index(0), lengths.index(0) + 1)
        raise DataError(f"row {lengths.index(0) + 1} has no token: {next(iter(empty)).text!r}")
    return table


def encoded(rows: Rows, core: Tokenizer, *, specials: bool) -> Iterator[list[Encoding]]:
    """Tokenise rows, many at once."""
    for start in range(0, len(rows), _BATCH):
        part = rows.part(start, start + _BATCH)
        texts = [row.text if row.pair is None else (row.text, row.pair) for row in part]
        yield core.encode_batch(texts, add_special_tokens=specials)


def _flat(batch: list[Encoding]) -> Ids:
    ids = [encoding.ids for encoding in batch]
    return np.fromiter(chain.from_iterable(ids), np.int32, sum(map(len, ids)))


def _checked(tokens: Ids, core: Tokenizer, limits: Limits) -> Ids:
    within(tokens, core.id_to_token, limits.vocab_size)
    return tokens


def within(tokens: Ids, name: Callable[[int], object], vocab_size: int) -> None:
    """Raise ModelError, with the token's name, for a token the model has no embedding for."""
    highest = int(tokens.max(initial=-1))
    if highest >= vocab_size:
        raise ModelError(
            f"the tokenizer gives token {highest} (`{name(highest)}`), the model has embeddings for "
            f"{vocab_size} tokens only; tokenizer and model do not belong together"
        )


def _packed(rows: Rows, tokenizer: PreTrainedTokenizerFast, limits: Limits) -> TokenTable:
    core = plain(tokenizer)
    size = room(core, limits, pairs=False)
    before, after = frame(core)
    lines = chain.from_iterable(encoded(rows, core, specials=False))
    numbered = zip(rows.documents, (np.array(line.ids, np.int32) for line in lines), strict=True)
    documents = (group for _, group in groupby(numbered, key=lambda pair: pair[0]))
    pieces = [piece for group in documents for piece in _pieces((line for _, line in group), size)]
    framed = [np.concatenate([before, piece, after]) for piece in pieces]
    table = TokenTable(
        tokens=_checked(np.concatenate([np.empty(0, np.int32), *framed]), core, limits),
        offsets=np.cumsum([0, *map(len, framed)], dtype=np.int64),
        labels=np.full(len(framed), IGNORED, dtype=np.int64),
        example_ids=np.fromiter(map(hash_tokens, framed), np.int64, len(framed)),
    )
    if len(table) == 0:
        raise DataError(f"{len(rows)} rows of text hold no token")
    return table


def _pieces(lines: Iterator[Ids], room: int) -> Iterator[Ids]:
    """Join the lines of a document while they fit; cut those that fit nowhere."""
    held: list[Ids] = []
    size = 0
    for line in lines:
        if held and size + len(line) > room:
            yield np.concatenate(held)
            held, size = [], 0
        while len(line) > room:
            yield line[:room]
            line = line[room:]
        if len(line):
            held.append(line)
            size += len(line)
    if held:
        yield np.concatenate(held)


def frame(core: Tokenizer) -> tuple[Ids, Ids]:
    """Return the special tokens that stand before and after a single text."""
    probe = core.encode("a")
    special = np.array(probe.special_tokens_mask, dtype=np.bool_)
    ids = np.array(probe.ids, dtype=np.int32)
    text = np.flatnonzero(~special)
    return ids[: text[0]], ids[text[-1] + 1 :]
