"""Marian's own tokenizer has two SentencePiece models and no fast core; most people's translators come with it."""

import json
from io import BytesIO
from pathlib import Path
from shutil import copytree

import pytest
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from configs.data import Task
from configs.decoding import Decoding
from distill.data.pairs import TargetLimits, tokenise_targets
from distill.data.rows import Row, Rows
from distill.data.tokenise import tokenizer_digest
from distill.errors import ModelError
from distill.models import Loaded, ModelSource, fast, fingerprint, load, load_tokenizer
from teachers.text.build import Asked, build
from tests.helpers import pairs

TASK = Task(kind="generation")


def pieces(texts: list[str]) -> bytes:
    written = BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=written, vocab_size=60, hard_vocab_limit=False, minloglevel=3
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian")
    known: list[str] = []
    for name, texts in zip(("source", "target"), zip(*pairs.sentences(100), strict=True), strict=True):
        model = pieces(list(texts))
        (folder / f"{name}.spm").write_bytes(model)
        trained = SentencePieceProcessor(model_proto=model)
        known += [trained.id_to_piece(number) for number in range(len(trained))]
    listed = ["</s>", "<unk>", *(piece for piece in dict.fromkeys(known) if not piece.startswith("<")), "<pad>"]
    numbered = {piece: number for number, piece in enumerate(listed)}
    (folder / "vocab.json").write_text(json.dumps(numbered), encoding="utf-8")
    tokenizer = MarianTokenizer(
        source_spm=str(folder / "source.spm"), target_spm=str(folder / "target.spm"), vocab=str(folder / "vocab.json")
    )
    tokenizer.save_pretrained(folder)
    pad = numbered["<pad>"]
    sizes = {f"{side}_{size}": 2 for side in ("encoder", "decoder") for size in ("layers", "attention_heads")}
    config = MarianConfig(
        vocab_size=len(listed),
        d_model=16,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
        forced_eos_token_id=None,
        scale_embedding=True,
        **sizes,
    )
    torch.manual_seed(0)
    MarianMTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(ModelSource(str(folder)), TASK, (), "teacher.model")


def test_it_has_no_fast_core_and_classifiers_say_so(folder: Path) -> None:
    tokenizer = load_tokenizer(ModelSource(str(folder)), "teacher.model")
    with pytest.raises(ModelError, match=r"teacher\.model: .* has no fast tokenizer"):
        fast(tokenizer, "teacher.model")


def test_sources_and_targets_go_through_their_own_models(folder: Path, loaded: Loaded) -> None:
    sentences = pairs.sentences(20, seed=3)
    rows = Rows.of([Row(source, None, None, n, target) for n, (source, target) in enumerate(sentences)])
    table = tokenise_targets(rows, loaded.tokenizer, TargetLimits(64, 64, 200, loaded.model.config.pad_token_id))
    assert table.targets is not None and table.target_offsets is not None
    target = SentencePieceProcessor(str(folder / "target.spm"))
    for number, (_, text) in enumerate(sentences):
        ids = table.targets[table.target_offsets[number] : table.target_offsets[number + 1]].tolist()
        assert loaded.tokenizer.convert_ids_to_tokens(ids) == [*target.encode(text, out_type=str), "</s>"]


def test_its_digest_is_of_its_models(folder: Path, loaded: Loaded, tmp_path: Path) -> None:
    first = tokenizer_digest(loaded.tokenizer)
    assert first == tokenizer_digest(load_tokenizer(ModelSource(str(folder)), "x"))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    assert first != tokenizer_digest(load_tokenizer(ModelSource(str(tmp_path)), "x"))


@pytest.mark.parametrize("name", ["source.spm", "target.spm"])
def test_other_pieces_make_another_model(folder: Path, tmp_path: Path, name: str) -> None:
    """Or texts and records of a tokenizer that was replaced would stand for the new one's."""
    copied = Path(copytree(folder, tmp_path / "copy"))
    before = fingerprint(ModelSource(str(copied)))
    assert before == fingerprint(ModelSource(str(folder)))
    (copied / name).write_bytes(pieces(["ab ba cd dc ef"] * 20))
    assert fingerprint(ModelSource(str(copied))) != before


@pytest.mark.parametrize("engine", ["huggingface", "ctranslate2"])
def test_it_writes_through_both_engines_alike(engine, loaded: Loaded, tmp_path: Path) -> None:
    sources = [source for source, _ in pairs.sentences(12, seed=4)]
    built = build(loaded, "x", Asked(engine, "float32", tmp_path / engine, sources, Decoding()))
    found = dict(built.teacher.generate(sources, Decoding(beams=3, max_tokens=8)))
    inputs = loaded.tokenizer(sources, return_tensors="pt", padding=True)
    expected = loaded.model.generate(**inputs, num_beams=3, early_stopping=True, max_new_tokens=8)
    texts = loaded.tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert [found[place].texts[0].text for place in range(12)] == texts
