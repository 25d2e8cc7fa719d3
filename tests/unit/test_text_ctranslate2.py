"""CTranslate2 writes what the model writes, and a conversion that is wrong is refused."""

import pytest
import torch
from ctranslate2.converters import transformers as stock
from transformers import MT5Config, MT5ForConditionalGeneration

from configs.decoding import Decoding
from distill.errors import DataError, ModelError
from distill.models import Loaded
from teachers.text import convert as conversion
from teachers.text.build import Asked, build
from teachers.text.convert import LOADERS, convert
from teachers.text.ctranslate2 import CTranslate2Writer
from teachers.text.forced import mean_log_probs
from teachers.text.huggingface import HuggingFaceWriter
from tests.helpers.writers import END, PAD, WORDS, prompts, tokenizer, writer

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


def test_a_text_ends_at_any_of_a_models_ends(tmp_path):
    model, texts = writer("marian", seed=4), prompts(16)  # with six of them
    engine = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "ct2", threads=1)
    asked = DECODING.model_copy(update={"hypotheses": 1, "beams": 1, "length_penalty": None})
    found = dict(engine.generate(texts, asked))
    expected = dict(HuggingFaceWriter([model], tokenizer(), "x").generate(texts, asked))
    ends = {wanted.texts[0].tokens[-1] for wanted in expected.values() if wanted.texts[0].ended}
    assert len(ends) > 1
    for place, wanted in expected.items():
        assert found[place].texts[0].tokens == wanted.texts[0].tokens
        assert found[place].texts[0].ended == wanted.texts[0].ended


def test_an_engine_that_searches_otherwise_is_refused(tmp_path, monkeypatch):
    """Though it is the same model by its log-probabilities."""
    model = writer("marian", seed=4)
    monkeypatch.setattr("teachers.text.ctranslate2.ends", lambda settings: (END,))  # of six
    loaded = Loaded(model, tokenizer(), "a test", trained_head=True)
    asked = Asked("auto", "float32", tmp_path / "ct2", prompts(16), DECODING)
    assert "writes other texts than the model it was made from: " in build(loaded, "x", asked).why
    monkeypatch.undo()
    assert build(loaded, "x", asked).why == "the fastest, and the same model"


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


@pytest.mark.parametrize(
    ("rule", "value", "named"),
    [
        ("min_length", 14, "MinLength"),
        ("no_repeat_ngram_size", 2, "NoRepeatNGram"),
        ("repetition_penalty", 1.3, "RepetitionPenalty"),
        ("bad_words_ids", [[5]], "NoBadWords"),
        ("forced_bos_token_id", 5, None),
    ],
)
def test_auto_writes_what_our_own_search_writes_under_any_rule(rule, value, named, tmp_path):
    model, texts = _model("bart"), prompts(12)
    setattr(model.generation_config, rule, value)
    how = Decoding(beams=4, max_tokens=24)
    loaded = Loaded(model, tokenizer(), "a model", trained_head=True)
    built = build(loaded, "x", Asked("auto", "float32", tmp_path / "ct2", texts, how, threads=1))
    assert isinstance(built.teacher, HuggingFaceWriter if named else CTranslate2Writer)
    assert (named or "the fastest, and the same model") in built.why
    found = dict(built.teacher.generate(texts, how))
    expected = dict(HuggingFaceWriter([model], tokenizer(), "x").generate(texts, how))
    assert [found[place].texts[0].tokens for place in found] == [expected[place].texts[0].tokens for place in found]


def test_asked_for_by_name_it_is_refused_where_it_would_break_the_models_rules(tmp_path):
    model = _model("bart")
    loaded = Loaded(model, tokenizer(), "a model", trained_head=True)
    asked = Asked("ctranslate2", "float32", tmp_path / "ct2", prompts(4), Decoding(beams=4, max_tokens=24), threads=1)
    assert isinstance(build(loaded, "x", asked).teacher, CTranslate2Writer)
    model.generation_config.min_length = 14
    model.generation_config.repetition_penalty = 1.3
    with pytest.raises(ModelError, match=r"^engine: .* asks for: RepetitionPenalty, MinLength; use `huggingface`$"):
        build(loaded, "x", asked)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_start_with_the_token_of_the_generation_configuration(family, tmp_path):
    """As `generate` does, whatever stands in the model's configuration."""
    model, texts = _model(family), prompts(12)
    model.generation_config.decoder_start_token_id = 9
    how = Decoding(beams=4, max_tokens=16)
    loaded = Loaded(model, tokenizer(), "a model", trained_head=True)
    built = build(loaded, "x", Asked("auto", "float32", tmp_path / "ct2", texts, how, threads=1))
    assert isinstance(built.teacher, CTranslate2Writer)
    found = dict(built.teacher.generate(texts, how))
    expected = dict(HuggingFaceWriter([model], tokenizer(), "x").generate(texts, how))
    assert [found[place].texts[0].tokens for place in range(12)] == [expected[n].texts[0].tokens for n in range(12)]
    ids, wanted = (tokenizer()([text], return_tensors="pt")["input_ids"] for text in ("w1 w2", "w3 w4 w5"))
    with torch.inference_mode():
        logits = model(input_ids=ids, decoder_input_ids=torch.cat([torch.tensor([[9]]), wanted[:, :-1]], 1)).logits
    likely = logits.log_softmax(-1).gather(-1, wanted[..., None]).mean()
    assert mean_log_probs(loaded, ["w1 w2"], ["w3 w4 w5"]) == pytest.approx([float(likely)], abs=1e-4)


@pytest.mark.parametrize("family", ["marian", "bart", "m2m_100", "pegasus", "t5"])
def test_rows_without_a_piece_go_along(family, tmp_path):
    model = writer(family, seed=4, ends=(END,), vocab_size=len(tokenizer()) + 3)
    model.generation_config.forced_eos_token_id = None
    sources, targets = _pairs(model, prompts(16))
    assert CTranslate2Writer(model, tokenizer(), "x", tmp_path / "ct2", threads=1).check(model, sources, targets).holds


def test_mt5_scales_no_outputs(tmp_path):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": len(tokenizer())}
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(
        MT5Config(**sizes, pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD)
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    sources, targets = _pairs(model.eval(), prompts(8))
    assert CTranslate2Writer(model, tokenizer(), "x", tmp_path / "ct2", threads=1).check(model, sources, targets).holds


def test_what_it_cannot_take_is_an_error_and_auto_goes_on_without(tmp_path):
    model = _model("bart")
    model.config.activation_function = "laplace"
    with pytest.raises(ModelError, match=r"engine: CTranslate2 does not take .*; use `huggingface`"):
        convert(model, tokenizer(), tmp_path)
    loaded = Loaded(model, tokenizer(), "a model", trained_head=True)
    built = build(loaded, "x", Asked("auto", "float32", tmp_path / "ct2", prompts(2), Decoding(), threads=1))
    assert isinstance(built.teacher, HuggingFaceWriter) and "laplace" in built.why
    with pytest.raises(ModelError, match="is used for encoder-decoders here"):
        convert(writer("llama"), tokenizer(), tmp_path)


def test_int8_goes_through_the_same_gate_and_has_another_fingerprint(tmp_path):
    model = _model("bart")
    sources, targets = _pairs(model, prompts(8))
    exact = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "a", threads=1)
    small = CTranslate2Writer(model, tokenizer(), "x", tmp_path / "b", compute_type="int8", threads=1)
    assert small.check(model, sources, targets).worst == pytest.approx(exact.check(model, sources, targets).worst)
    assert small.fingerprint != exact.fingerprint and "int8" in small.describe()


def test_a_language_is_what_a_text_starts_with(tmp_path):
    words = tokenizer(special=("w9",))
    engine = CTranslate2Writer(_model("mbart"), words, "x", tmp_path / "ct2", threads=1)
    found = dict(engine.generate(prompts(4), Decoding(beams=2, max_tokens=8, language="w9")))
    assert all(one.texts[0].tokens[0] == words.convert_tokens_to_ids("w9") for one in found.values())


def test_nothing_is_cut_silently(tmp_path):
    engine = CTranslate2Writer(_model("marian"), tokenizer(), "x", tmp_path / "ct2", threads=1)
    with pytest.raises(DataError, match="prompt 0 has 70 tokens, the model 64 positions"):
        list(engine.generate([" ".join(WORDS[:23] * 3)], DECODING))


def test_a_model_it_does_not_have_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="CTranslate2 has no led; use `huggingface`"):
        convert(_model("led"), tokenizer(), tmp_path)
