"""CTranslate2 writes what the model writes, and a conversion that is wrong is refused."""

import pytest
from ctranslate2.converters import transformers as stock

from configs.decoding import Decoding
from distill.errors import DataError, ModelError
from teachers.text import convert as conversion
from teachers.text.convert import LOADERS, convert
from teachers.text.ctranslate2 import CTranslate2Writer
from teachers.text.huggingface import HuggingFaceWriter
from tests.helpers.writers import END, WORDS, prompts, tokenizer, writer

FAMILIES = ("marian", "bart", "mbart", "m2m_100", "pegasus", "t5", "t5-v1.1")
DECODING = Decoding(beams=4, hypotheses=4, max_tokens=16, length_penalty=0.8, tokens_per_batch=64)


def _model(family):
    """Without an end that is forced at the limit: CTranslate2 cuts there."""
    model = writer(family, seed=4, ends=(END,))
    model.generation_config.forced_eos_token_id = None
    return model


def _pairs(model, texts):
    """Sources with what the model writes for them, end token included."""
    engine = HuggingFaceWriter([model], tokenizer(), "x")
    found = dict(engine.generate(texts, DECODING.model_copy(update={"hypotheses": 1})))
    targets = [[token for token in found[place].texts[0].tokens if token != END] + [END] for place in range(len(texts))]
    return tokenizer()(texts)["input_ids"], targets


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_our_own_search_in_text_and_scores(family, tmp_path):
    model, texts = _model(family), prompts(16)
    sources, targets = _pairs(model, texts)
    engine = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "ct2", threads=1)
    assert engine.check(model, sources, targets).holds
    found = dict(engine.generate(texts, DECODING))
    expected = dict(HuggingFaceWriter([model], tokenizer(), "x").generate(texts, DECODING))
    assert found.keys() == expected.keys()
    for place, wanted in expected.items():
        assert [one.tokens for one in found[place].texts] == [one.tokens for one in wanted.texts]
        assert [one.text for one in found[place].texts] == [one.text for one in wanted.texts]
        assert [one.ended for one in found[place].texts] == [one.ended for one in wanted.texts]
        assert [one.score for one in found[place].texts] == pytest.approx([one.score for one in wanted.texts], abs=1e-3)


class _ZeroStart(LOADERS["MarianConfig"]):
    """Marian as the stock loader has it: no `<pad>` row to start from."""

    def set_decoder(self, spec, decoder):
        spec.start_from_zero_embedding = True
        super().set_decoder(spec, decoder)


@pytest.mark.parametrize(
    ("family", "config", "loader"),
    [("t5-v1.1", "T5Config", stock.T5Loader), ("marian", "MarianConfig", _ZeroStart)],
)
def test_the_gate_refuses_known_defects(family, config, loader, tmp_path, monkeypatch):
    model = _model(family)
    sources, targets = _pairs(model, prompts(16))
    monkeypatch.setitem(conversion.LOADERS, config, loader)
    engine = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "ct2", threads=1)
    with pytest.raises(ModelError, match=r"is not the model it was made from: log p of 16 texts differs by"):
        engine.check(model, sources, targets)


def test_a_forbidden_token_is_forbidden_there_too(tmp_path):
    model = _model("marian")
    free = dict(CTranslate2Writer(model, tokenizer(), "x", tmp_path / "a", threads=1).generate(prompts(8), DECODING))
    token = free[0].texts[0].tokens[0]
    model.generation_config.bad_words_ids = [[token]]
    bound = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "b", threads=1).generate(prompts(8), DECODING)
    assert all(token not in one.tokens for _, found in bound for one in found.texts)


def test_int8_goes_through_the_same_gate_and_has_another_fingerprint(tmp_path):
    model = _model("bart")
    sources, targets = _pairs(model, prompts(8))
    exact = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "a", threads=1)
    small = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "b", compute_type="int8", threads=1)
    assert small.check(model, sources, targets).worst == pytest.approx(exact.check(model, sources, targets).worst)
    assert small.fingerprint != exact.fingerprint and "int8" in small.describe()


def test_a_language_is_what_a_text_starts_with(tmp_path):
    engine = CTranslate2Writer(_model("mbart"), tokenizer(), "x", tmp_path / "ct2", threads=1)
    found = dict(engine.generate(prompts(4), Decoding(beams=2, max_tokens=8, language="w9")))
    assert all(one.texts[0].text.split()[0] == "w9" for one in found.values())


def test_nothing_is_cut_silently(tmp_path):
    engine = CTranslate2Writer(_model("marian"), tokenizer(), "x", tmp_path / "ct2", threads=1)
    with pytest.raises(DataError, match="prompt 0 has 70 tokens, the model 64 positions"):
        list(engine.generate([" ".join(WORDS[:23] * 3)], DECODING))


def test_a_model_it_does_not_have_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="CTranslate2 has no led; use `huggingface`"):
        convert(_model("led"), tokenizer(), tmp_path)
