"""Token tables hold what the tokenizer says, cut, packed, cached and joined."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from transformers import BertTokenizerFast

from distill.data.labels import Labels
from distill.data.rows import Row, Rows
from distill.data.table import TokenTable
from distill.data.tokenise import Limits, pack, tokenise
from distill.errors import DataError, ModelError
from distill.types import IGNORED
from tests.helpers.tiny import SPECIAL, WORDS, sentences, tokenizer

VOCAB = len(SPECIAL) + len(WORDS)
LIMITS = Limits(12, VOCAB)


def rows_of(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Rows:
    seconds = [None] * len(texts) if pairs is None else pairs
    return Rows.of([Row(a, b, None, number) for number, (a, b) in enumerate(zip(texts, seconds, strict=True))])


def unlabelled(rows: Rows) -> Labels:
    return np.full(len(rows), IGNORED, dtype=np.int64)


def row(table: TokenTable, number: int) -> list[int]:
    ids: list[int] = table.tokens[table.offsets[number] : table.offsets[number + 1]].tolist()
    return ids


def lines_of(texts: Sequence[str], documents: Sequence[int]) -> Rows:
    rows = rows_of(texts)
    return Rows(rows.table.append_column("document", pa.array(documents, pa.int32())))


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_what_the_tokenizer_makes_of_them(side: str) -> None:
    texts = [text for text, _ in sentences(40)]
    core: BertTokenizerFast = tokenizer()
    core.truncation_side = side
    rows = rows_of(texts)
    table = tokenise(rows, unlabelled(rows), core, LIMITS)
    expected = core(texts, truncation=True, max_length=12)["input_ids"]
    assert [row(table, number) for number in range(len(table))] == expected
    assert table.lengths.tolist() == [len(ids) for ids in expected]
    assert table.type_ids is None
    assert table.example_ids.tolist() == list(range(40))
    assert table.notes == {"rows cut to 12 tokens": sum(len(text.split()) > 10 for text in texts)}


def test_pairs_lose_tokens_of_their_longer_text_first() -> None:
    texts, pairs = zip(
        *[(a, b) for (a, _), (b, _) in zip(sentences(40), sentences(40, seed=1), strict=True)], strict=True
    )
    core = tokenizer()
    rows = rows_of(texts, pairs)
    table = tokenise(rows, unlabelled(rows), core, LIMITS)
    expected = core(list(texts), list(pairs), truncation="longest_first", max_length=12)
    assert [row(table, number) for number in range(len(table))] == expected["input_ids"]
    assert table.type_ids is not None
    types = [table.type_ids[a:b].tolist() for a, b in zip(table.offsets, table.offsets[1:], strict=False)]
    assert types == expected["token_type_ids"]


def test_what_a_tokenizer_was_used_for_before_changes_nothing() -> None:
    fresh, used = tokenizer(), tokenizer()
    used(["ba be", "bi"], padding="max_length", truncation=True, max_length=3)
    rows = rows_of(["ba be bi bo", "ba"])
    first, second = (tokenise(rows, unlabelled(rows), core, LIMITS) for core in (fresh, used))
    assert first.fingerprint == second.fingerprint


def test_no_rows_are_an_empty_table() -> None:
    rows = rows_of([])
    table = tokenise(rows, unlabelled(rows), tokenizer(), LIMITS)
    assert (len(table), table.lengths.tolist(), table.offsets.tolist()) == (0, [], [0])


def test_a_token_beyond_the_embeddings() -> None:
    rows = rows_of([WORDS[-1]])
    with pytest.raises(ModelError) as caught:
        tokenise(rows, unlabelled(rows), tokenizer(), Limits(12, VOCAB - 1))
    expected = (
        f"the tokenizer gives token {VOCAB - 1} (`{WORDS[-1]}`), the model has embeddings for {VOCAB - 1} tokens only; "
        "tokenizer and model do not belong together"
    )
    assert str(caught.value) == expected


@pytest.mark.parametrize(("pairs", "text"), [
    (None, "task.max_length: 2 leaves no room beside 2 special tokens; at least 3"),
    (["be"], "task.max_length: 2 leaves no room beside 3 special tokens; at least 5"),
])  # fmt: skip
def test_a_length_that_leaves_no_room(pairs: list[str] | None, text: str) -> None:
    rows = rows_of(["ba"], pairs)
    with pytest.raises(DataError) as caught:
        tokenise(rows, unlabelled(rows), tokenizer(), Limits(2, VOCAB))
    assert str(caught.value) == text


def test_a_row_without_tokens() -> None:
    core = tokenizer()
    core.backend_tokenizer.post_processor = None
    rows = rows_of(["ba", "\u200b\u2060"])
    with pytest.raises(DataError, match=r"^row 2 has no token: '\\u200b\\u2060'$"):
        tokenise(rows, unlabelled(rows), core, LIMITS)


def test_a_cached_table_is_mapped_and_a_damaged_one_built_anew(tmp_path: Path) -> None:
    rows = rows_of([text for text, _ in sentences(20)], [text for text, _ in sentences(20, seed=1)])
    built = tokenise(rows, unlabelled(rows), tokenizer(), LIMITS, tmp_path)
    again = tokenise(rows, unlabelled(rows), tokenizer(), LIMITS, tmp_path)
    assert isinstance(again.tokens, np.memmap)
    assert (again.fingerprint, again.notes) == (built.fingerprint, built.notes)
    (folder,) = filter(Path.is_dir, tmp_path.iterdir())
    raw = bytearray((folder / "tokens.npy").read_bytes())
    raw[-1] ^= 1
    (folder / "tokens.npy").write_bytes(raw)
    mended = tokenise(rows, unlabelled(rows), tokenizer(), LIMITS, tmp_path)
    assert mended.fingerprint == built.fingerprint
    assert mended.notes == {**built.notes, "damaged caches rebuilt": 1}
    assert "damaged caches rebuilt" not in tokenise(rows, unlabelled(rows), tokenizer(), LIMITS, tmp_path).notes


def test_a_table_another_process_wrote_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(["ba be"])
    built = tokenise(rows, unlabelled(rows), tokenizer(), LIMITS, tmp_path)
    load, looks = TokenTable.load, iter([lambda folder: None])
    monkeypatch.setattr(TokenTable, "load", lambda folder: next(looks, load)(folder))  # not there yet at the first look
    monkeypatch.setattr("distill.data.tokenise._tokenised", pytest.fail)
    again = tokenise(rows, unlabelled(rows), tokenizer(), LIMITS, tmp_path)
    assert (again.fingerprint, again.notes) == (built.fingerprint, built.notes)


def test_the_cache_knows_what_decides_the_tokens(tmp_path: Path) -> None:
    rows = rows_of(["ba be", "bi bo bu"])
    other = tokenizer()
    other.truncation_side = "left"
    tokenise(rows, unlabelled(rows), tokenizer(), LIMITS, tmp_path)
    tokenise(rows, np.array([0, 1]), tokenizer(), LIMITS, tmp_path)
    tokenise(rows, unlabelled(rows), tokenizer(), Limits(4, VOCAB), tmp_path)
    tokenise(rows, unlabelled(rows), other, LIMITS, tmp_path)
    tokenise(rows.part(0, 1), np.array([IGNORED]), tokenizer(), LIMITS, tmp_path)
    pack(rows, tokenizer(), LIMITS, tmp_path)
    assert len(list(tmp_path.glob("[!.]*"))) == 6


def test_joined_tables_hold_all_rows() -> None:
    single, paired = rows_of(["ba", "be bi"]), rows_of(["bo"], ["bu"])
    first = tokenise(single, np.array([1, IGNORED]), tokenizer(), LIMITS)
    second = tokenise(paired, np.array([0]), tokenizer(), LIMITS)
    joined = TokenTable.concatenate([first, second])
    assert [row(joined, number) for number in range(3)] == [row(first, 0), row(first, 1), row(second, 0)]
    assert joined.type_ids is not None and second.type_ids is not None
    assert joined.type_ids.tolist() == [0] * len(first.tokens) + second.type_ids.tolist()
    assert joined.labelled.tolist() == [True, False, True]
    scores = TokenTable.of([[1]], np.array([np.nan], dtype=np.float32), np.array([7]))
    assert scores.labelled.tolist() == [False]
    with pytest.raises(ValueError, match="cannot be joined"):
        TokenTable.concatenate([first, scores])


def test_the_fingerprint_is_that_of_the_content() -> None:
    base = TokenTable.of([[1, 2], [3]], np.array([0, 1]), np.array([5, 6]))
    others = [
        TokenTable.of([[1], [2, 3]], np.array([0, 1]), np.array([5, 6])),
        TokenTable.of([[1, 2], [4]], np.array([0, 1]), np.array([5, 6])),
        TokenTable.of([[1, 2], [3]], np.array([1, 1]), np.array([5, 6])),
        TokenTable.of([[1, 2], [3]], np.array([0, 1]), np.array([5, 7])),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5


def plain_pieces(lines: list[list[int]], room: int) -> list[list[int]]:
    """What packing means, word by word: a line that still fits goes on in the piece before it."""
    pieces: list[list[int]] = [[]]
    for line in lines:
        if len(pieces[-1]) + len(line) > room:
            pieces.append([])
        for token in line:
            if len(pieces[-1]) == room:
                pieces.append([])
            pieces[-1].append(token)
    return [piece for piece in pieces if piece]


def test_lines_are_packed_within_documents() -> None:
    core = tokenizer()
    documents = [[text for text, _ in sentences(30, seed)] for seed in range(3)]
    documents[1][4] = " ".join(WORDS[:35])
    texts = [text for document in documents for text in document]
    table = pack(lines_of(texts, [n for n, document in enumerate(documents) for _ in document]), core, LIMITS)
    expected = []
    for document in documents:
        ids = core(document, add_special_tokens=False)["input_ids"]
        expected += [[2, *piece, 3] for piece in plain_pieces(ids, 10)]
    assert [row(table, number) for number in range(len(table))] == expected
    assert table.lengths.max() == 12
    assert not table.labelled.any()


def test_equal_pieces_have_equal_ids_and_rows_that_are_no_lines_stand_alone() -> None:
    table = pack(rows_of(["ba be", "bi", "ba be"]), tokenizer(), LIMITS)
    assert table.lengths.tolist() == [4, 3, 4]
    assert table.example_ids[0] == table.example_ids[2] != table.example_ids[1]
