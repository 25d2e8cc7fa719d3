"""Vocabularies of one's own: split as the sentencepiece library splits, lossless, the same every time."""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from transformers import AutoTokenizer, MarianConfig, MarianMTModel, PreTrainedTokenizerFast, T5Config
from transformers import T5ForConditionalGeneration as T5

from distill.data import vocabulary
from distill.data.embedded import load
from distill.data.tokenise import tokenizer_digest
from distill.data.vocabulary import as_tokenizer, learn_pieces, train_vocabulary
from distill.errors import DataError
from distill.models import ModelSource, load_tokenizer

SHARED = Path(os.environ.get("DISTILL_SHARED", Path(__file__).parents[3] / "shared"))
MULTI30K = SHARED / "data" / "multi30k_en_de"
GERMAN = [
    "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
    "Über den Straßen hängen grüne Lichter; es ist kühl, aber schön.",
    "„Wie heißt du?“, fragte das Mädchen den größeren Jungen.",
    "Öl kostet 12,50 € je Liter, 3 % mehr als im Jahr 2016!",
]
EMBEDDED = [row["text"] for row in load(part="train")] + GERMAN
SIZE = 800
NAMES = ["</s>", "<pad>", "<unk>", "<0x41>", "<0xE2>", "</", "s>", "<", "0x41>", "▅", "⁇", "\ufeff", "\0"]
TRICKY = [
    "",
    "Grüße aus Köln – „schön“ war's, 3.000,50 € für 2 Äpfel!",
    "日本語 und 😀👩‍👩‍👧 und Ωμέγα",
    "a </s> b <pad><unk> <0x41> c",
    "tab\there, line\nthere, no\u00a0break, hello . n't",
    "e\u0301 \ufeff \u200d \0 \r\n \u2028 x",
    "aaaaaaaaaaaaaaaa 000000000 ........",
]


def rounded(model: bytes) -> SentencePieceProcessor:
    """The model with its scores on a grid of 1/1024, all else as it was trained."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * 1024) / 1024
    return SentencePieceProcessor(model_proto=proto.SerializeToString())


def file_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def spaced(text: str) -> str:
    return " ".join(word for word in text.split(" ") if word)


@pytest.fixture(scope="module")
def model() -> bytes:
    return learn_pieces(EMBEDDED, SIZE, character_coverage=0.9999, where="test")


@pytest.fixture(scope="module")
def tokenizer(model: bytes) -> PreTrainedTokenizerFast:
    return as_tokenizer(model)


@pytest.fixture(scope="module")
def library(model: bytes) -> SentencePieceProcessor:
    return rounded(model)


def multi30k(part: str, count: int | None = None) -> list[str]:
    if not MULTI30K.is_dir():
        pytest.skip(f"no Multi30k in {MULTI30K}; set DISTILL_SHARED")
    texts = []
    for language in ("en", "de"):
        with gzip.open(MULTI30K / f"{part}.{language}.gz", "rt", encoding="utf-8", newline="\n") as handle:
            texts += [line.strip() for line in handle.read().split("\n") if line.strip()][:count]
    return texts


@pytest.fixture(scope="module")
def multi30k_model() -> bytes:
    return learn_pieces(multi30k("train", 4000), 4000, character_coverage=0.9999, where="test")


def test_ids_of_special_tokens_and_the_size_are_as_asked(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == SIZE
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert (tokenizer.bos_token, tokenizer.all_special_ids) == (None, [1, 2, 0])
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 258]) == ["<pad>", "</s>", "<unk>", "<0x00>", "<0xFF>"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(SIZE))


def test_an_end_is_appended_nothing_is_put_in_front_and_there_are_no_types(tokenizer):
    found = tokenizer(["die Katze", ""], padding=True)
    assert set(found) == {"input_ids", "attention_mask"}
    assert found["input_ids"][0] == [*tokenizer.encode("die Katze", add_special_tokens=False), 1]
    assert tokenizer("")["input_ids"] == [1]
    assert found["input_ids"][1] == [1] + [0] * (len(found["input_ids"][0]) - 1)
    assert found["attention_mask"][1] == [1] + [0] * (len(found["input_ids"][0]) - 1)
    assert tokenizer("a", "b")["input_ids"] == tokenizer("a")["input_ids"] + tokenizer("b")["input_ids"]


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_texts_are_split_as_the_library_does_and_come_back(tokenizer, library, text):
    ids = tokenizer.encode(text)
    assert ids[:-1] == library.encode(text)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@given(st.lists(st.sampled_from([*NAMES, *EMBEDDED, " ", "  "]) | st.text(max_size=20), max_size=8).map("".join))
def test_any_text_is_split_as_the_library_does_and_comes_back(tokenizer, library, text):
    text = text.replace("▁", "")
    ids = tokenizer.encode(text)
    assert ids[:-1] == library.encode(text) and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids and tokenizer.pad_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == spaced(text)


def test_a_character_never_seen_is_spelt_by_its_bytes(tokenizer):
    assert tokenizer.tokenize("日") == ["▁", "<0xE6>", "<0x97>", "<0xA5>"]


def test_the_embedded_set_is_split_as_the_library_does(tokenizer, library):
    texts = [row["text"] for part in ("test", "transfer") for row in load(part=part)] + GERMAN
    found = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert found == library.encode(texts)
    assert tokenizer.batch_decode(found) == texts


def test_multi30k_is_split_as_the_library_does(multi30k_model):
    texts = multi30k("val")
    assert len(texts) == 2 * 1014
    tokenizer = as_tokenizer(multi30k_model)
    found = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert found == rounded(multi30k_model).encode(texts)
    assert tokenizer.batch_decode(found) == [spaced(text) for text in texts]
    joined = [" ".join(texts[start : start + 20]) for start in range(0, len(texts), 20)]
    assert tokenizer(joined, add_special_tokens=False)["input_ids"] == rounded(multi30k_model).encode(joined)


def test_rounded_scores_move_next_to_no_split(multi30k_model):
    texts = multi30k("val")
    exact = SentencePieceProcessor(model_proto=multi30k_model).encode(texts)
    found = as_tokenizer(multi30k_model)(texts, add_special_tokens=False)["input_ids"]
    assert sum(one != other for one, other in zip(exact, found, strict=True)) <= len(texts) // 200


def test_equally_good_splits_are_chosen_as_the_library_does(multi30k_model):
    # t·tt and tt·t have one score; with unrounded scores a tenth of these texts are split in another way
    tokenizer = as_tokenizer(multi30k_model)
    assert {"t", "tt", "o", "oo", "l", "ll"} <= set(tokenizer.get_vocab())
    texts = [f"{text} {triple} x{triple}" for text in multi30k("val", 500) for triple in ("ttt", "ooo", "lllll")]
    assert tokenizer(texts, add_special_tokens=False)["input_ids"] == rounded(multi30k_model).encode(texts)


def test_scores_are_those_of_the_trained_model_on_a_grid_that_sums_exactly(tokenizer, model):
    trained = SentencePieceProcessor(model_proto=model)
    scored = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    assert [piece for piece, _ in scored] == [trained.id_to_piece(number) for number in range(SIZE)]
    assert all((score * 1024).is_integer() for _, score in scored)
    for number in range(259, SIZE):
        assert scored[number][1] == pytest.approx(trained.get_score(number), abs=1 / 2048)


def test_one_vocabulary_holds_words_of_both_languages(multi30k_model):
    known = as_tokenizer(multi30k_model).get_vocab()
    assert {"▁the", "▁people", "▁und", "▁Männer", "▁Straße", "▁in"} <= set(known)


def test_the_same_texts_in_another_order_process_and_number_of_cores_give_the_same_file(tokenizer):
    code = (
        "import json, os, sys\n"
        "from distill.data.vocabulary import train_vocabulary\n"
        "if sys.platform == 'linux':\n"
        "    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
        f"made = train_vocabulary(reversed(json.load(sys.stdin)), {SIZE})\n"
        "sys.stdout.buffer.write(made.backend_tokenizer.to_str().encode())\n"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    texts = json.dumps(EMBEDDED).encode()
    done = subprocess.run(command, cwd=root, env=environment, input=texts, capture_output=True, check=True)
    assert done.stdout == tokenizer.backend_tokenizer.to_str().encode()


def test_repeated_texts_count():
    two = ["Das Kraftfahrzeug ist schön.", "Ein Kraftfahrzeug, grün wie Öl."]
    found = [train_vocabulary([*EMBEDDED, *two * times], SIZE) for times in (1, 100)]
    assert ["▁Kraftfahrzeug" in one.get_vocab() for one in found] == [False, True]


def test_of_too_many_texts_a_hash_chooses(monkeypatch):
    monkeypatch.setattr(vocabulary, "MOST_TEXTS", 200)
    shuffled = random.Random(0).sample(EMBEDDED, len(EMBEDDED))
    found = [train_vocabulary(texts, 500) for texts in (EMBEDDED, shuffled)]
    assert file_digest(found[0]) == file_digest(found[1])
    kept = sorted(EMBEDDED, key=vocabulary.hash_text)[:200]
    assert file_digest(train_vocabulary(kept, 500)) == file_digest(found[0])
    monkeypatch.undo()
    assert file_digest(train_vocabulary(kept, 500)) == file_digest(found[0])
    assert file_digest(train_vocabulary(EMBEDDED, 500)) != file_digest(found[0])


def test_a_very_long_text_counts_too():
    words = " ".join(["Kraftfahrzeug"] * 1000)
    assert "▁Kraftfahrzeug" in train_vocabulary([*EMBEDDED, words], SIZE).get_vocab()


@pytest.mark.parametrize("text", ["a </s> b </s>", "<0x41> b<0x41>", "<pad><unk>", "a\tb\nc\rd", "a ▅ ⁇", "a\0b"])
def test_texts_with_names_of_tokens_and_odd_characters_can_be_learnt_from(text):
    found = train_vocabulary([*EMBEDDED, *[text] * 50], 500)
    assert len(found) == 500
    assert found.decode(found.encode(text), skip_special_tokens=True) == text


SIZES = {"d_model": 16, "vocab_size": SIZE, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
MODELS = {
    "marian": lambda: MarianMTModel(
        MarianConfig(
            **SIZES, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32, forced_eos_token_id=1,
            bos_token_id=None, decoder_vocab_size=SIZE,
        )
    ),
    "t5": lambda: T5(T5Config(**SIZES, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
}  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
def test_a_saved_one_is_loaded_beside_a_model_as_it_was(tokenizer, tmp_path, family):
    MODELS[family]().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for found in (load_tokenizer(ModelSource(str(tmp_path)), "test"), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(found) is PreTrainedTokenizerFast
        assert file_digest(found) == file_digest(tokenizer) and tokenizer_digest(found) == tokenizer_digest(tokenizer)
        assert found(TRICKY) == tokenizer(TRICKY) and set(found("a")) == {"input_ids", "attention_mask"}
        assert found.batch_decode(found(TRICKY)["input_ids"], skip_special_tokens=True) == TRICKY
        assert (len(found), found.pad_token_id, found.eos_token_id, found.unk_token_id) == (SIZE, 0, 1, 2)
        assert found.all_special_ids == tokenizer.all_special_ids
    again = tmp_path / "again"
    found.save_pretrained(again)
    assert (again / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_nothing_is_printed_and_nothing_stays_on_disk(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    train_vocabulary(EMBEDDED, 500)
    with pytest.raises(DataError):
        train_vocabulary(EMBEDDED, 50_000)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("texts", [[], ["", "  ", "\n"]])
def test_no_text_is_refused(texts):
    with pytest.raises(DataError, match=r"^vocabulary: there is no text to learn pieces from$"):
        train_vocabulary(texts, SIZE)


def test_texts_without_a_usable_character_are_refused():
    with pytest.raises(DataError, match=r"^vocabulary: sentencepiece learns nothing from 1 texts: "):
        train_vocabulary(["▅"], SIZE)


def test_too_large_a_size_is_refused_with_the_largest_possible():
    few = EMBEDDED[:20]
    with pytest.raises(DataError) as refused:
        train_vocabulary(few, 8000, where="stages.teacher.vocabulary")
    words = str(refused.value).split("; at most ")
    assert words[0] == "stages.teacher.vocabulary: size 8,000 is more than 20 texts yield"
    most = int(words[1].replace(",", ""))
    assert len(train_vocabulary(few, most)) == most
    with pytest.raises(DataError, match=f"^vocabulary: size {most + 1} is more than 20 texts yield; at most {most}$"):
        train_vocabulary(few, most + 1)


@pytest.mark.parametrize("size", [-1, 0, 2, 3, 100, 260, 287])
def test_too_small_a_size_is_refused_with_the_smallest_possible(size):
    # 3 special, 256 bytes, the 27 characters of their names, a space and q
    said = f"^vocabulary: size {size} is too small; at least 288: 3 special, 256 bytes, 29 characters$"
    with pytest.raises(DataError, match=said):
        train_vocabulary(["q q q"], size)
    assert len(train_vocabulary(["q q q"], 288)) == 288


@pytest.mark.parametrize("coverage", [0.5, 1.01])
def test_a_coverage_sentencepiece_does_not_take_is_refused(coverage):
    said = f"^vocabulary: character coverage {coverage} is not between 0.98 and 1$"
    with pytest.raises(DataError, match=said):
        train_vocabulary(EMBEDDED, SIZE, character_coverage=coverage)
