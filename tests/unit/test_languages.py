"""Models of many languages read and write in the two that the task names."""

import pytest
import torch
from transformers import (
    AutoTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
)

from configs.data import Task
from configs.decoding import Decoding
from distill.data.tokenise import tokenizer_digest
from distill.errors import ModelError
from distill.languages import encode_targets
from distill.models import Loaded, ModelSource, load
from teachers.text.ctranslate2 import CTranslate2Writer
from teachers.text.huggingface import HuggingFaceWriter

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
LETTERS = "abcdefgh"
SMALL = {
    "d_model": 16,
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")},
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
TEXTS = ["ab ba", "abc d", "hgf", "e f g h"]


def _nllb():
    pieces = [*SPECIAL, "▁", *LETTERS]
    return NllbTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[])


def _unigrams(codes=()):
    return (
        [(piece, 0.0) for piece in (*SPECIAL, "▁")] + [(one, -2.0) for one in LETTERS] + [(one, 0.0) for one in codes]
    )


def _mbart():
    codes = ("de_DE", "en_XX")
    return MBartTokenizer(vocab=[*_unigrams(codes), ("<mask>", 0.0)])


def _mbart50():
    return MBart50Tokenizer(vocab=[*_unigrams(), ("<mask>", 0.0)])


FAMILIES = {
    "nllb": (_nllb, M2M100Config, M2M100ForConditionalGeneration, ("deu_Latn", "eng_Latn")),
    "mbart50": (_mbart50, MBartConfig, MBartForConditionalGeneration, ("de_DE", "en_XX")),
    "mbart": (_mbart, MBartConfig, MBartForConditionalGeneration, ("de_DE", "en_XX")),
}


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path) -> tuple[str, str, str]:
    """A folder with a model of many languages, and two of them."""
    words, config, kind, (source, target) = FAMILIES[request.param]
    tokenizer = words()
    torch.manual_seed(0)
    model = kind(config(vocab_size=len(tokenizer), **SMALL))
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path), source, target


def _loaded(folder: str, source: str | None, target: str | None) -> Loaded:
    task = Task(kind="generation", source_language=source, target_language=target)
    return load(ModelSource(folder), task, (), "teacher.model")


def test_each_text_is_marked_with_its_own_language(family):
    folder, source, target = family
    words = _loaded(folder, source, target).tokenizer
    read, written = words(TEXTS)["input_ids"], encode_targets(words, TEXTS)
    marks = [words.convert_tokens_to_ids(code) for code in (source, target)]
    assert all(marks[0] in ids and marks[1] not in ids for ids in read)
    assert all(marks[0] not in ids and ids[-1] == words.eos_token_id for ids in written)
    turned = _loaded(folder, target, source).tokenizer
    assert turned(TEXTS)["input_ids"] != read
    other = _loaded(folder, source, source).tokenizer
    assert tokenizer_digest(words) != tokenizer_digest(other) != tokenizer_digest(turned)


def test_texts_are_those_of_generate_in_that_language(family, tmp_path):
    folder, source, target = family
    loaded = _loaded(folder, source, target)
    words, how = loaded.tokenizer, Decoding(beams=3, max_tokens=12)
    found = dict(HuggingFaceWriter([loaded.model], words, "x").generate(TEXTS, how))
    fast = dict(CTranslate2Writer(loaded.model, words, "x", tmp_path / "ct2", threads=1).generate(TEXTS, how))
    plain = AutoTokenizer.from_pretrained(folder, src_lang=source, tgt_lang=target)
    code = plain.convert_tokens_to_ids(target)
    model = type(loaded.model).from_pretrained(folder)
    starts = {"decoder_start_token_id": code} if isinstance(words, MBartTokenizer) else {"forced_bos_token_id": code}
    for place, text in enumerate(TEXTS):
        wanted = model.generate(
            **plain(text, return_tensors="pt"), num_beams=3, early_stopping=True, max_new_tokens=12, **starts
        )[0]
        assert wanted[0 if "decoder_start_token_id" in starts else 1] == code
        expected = plain.decode(wanted, skip_special_tokens=True)
        assert found[place].texts[0].text == fast[place].texts[0].text == expected


def test_the_languages_go_along_with_what_is_saved(family, tmp_path):
    folder, source, target = family
    loaded = _loaded(folder, source, target)
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (again.src_lang, again.tgt_lang) == (source, target)
    model = type(loaded.model).from_pretrained(tmp_path / "saved")
    own = HuggingFaceWriter([loaded.model], loaded.tokenizer, "x").generate(TEXTS, Decoding(beams=1, max_tokens=12))
    for place, completion in own:
        ids = model.generate(**again(TEXTS[place], return_tensors="pt"), max_new_tokens=12)[0]
        assert again.decode(ids, skip_special_tokens=True) == completion.texts[0].text


def test_languages_have_to_be_named_and_known(family):
    folder, source, target = family
    with pytest.raises(ModelError, match=r"task\.source_language: teacher\.model, .* is of many languages; name that"):
        _loaded(folder, None, None)
    with pytest.raises(ModelError, match=rf"task\.target_language: `{target}n` is no language of .*`{target}`"):
        _loaded(folder, source, f"{target}n")
    with pytest.raises(ModelError, match=r"task\.source_language: `a` is no language"):
        _loaded(folder, "a", target)


def test_languages_decide_results_where_they_are_said():
    plain, task = Task(kind="generation"), {"kind": "generation", "source_language": "de"}
    assert "language" not in plain.key()  # as runs have it that were made before there were such keys
    assert len({plain.key(), Task(**task, target_language="en").key(), Task(**task, target_language="fr").key()}) == 3
