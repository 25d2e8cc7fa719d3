"""Our beam search writes what transformers writes, whatever leaves the batch when."""

import math

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForCausalLM

from configs.adapters import PromptTuning, PTuning
from configs.data import Task
from configs.decoding import Decoding
from distill.errors import DataError, ModelError
from distill.models import Loaded
from students.adapters.build import build
from teachers.text.beam import BLOCK, Search, largest, search
from teachers.text.decoders import DecoderOnly, EncoderDecoder, Ensemble
from teachers.text.huggingface import HuggingFaceWriter
from tests.helpers.writers import CAUSAL, END, ENDS, FAMILIES, PAD, START, WORDS, prompts, tokenizer, writer

BEAMS, TOKENS = 4, 16
DECODING = Decoding(beams=BEAMS, hypotheses=BEAMS, max_tokens=TOKENS, length_penalty=0.8, tokens_per_batch=64)


def _ours(family, model, texts, decoding=DECODING):
    engine = HuggingFaceWriter([model], tokenizer(ends=family not in CAUSAL), "x")
    found = dict(engine.generate(texts, decoding))
    assert sorted(found) == list(range(len(texts)))
    return [found[place].texts for place in range(len(texts))]


def _theirs(family, model, text, **options):
    """One prompt at a time: nothing is padded, nothing waits."""
    encoded = tokenizer(ends=family not in CAUSAL)(text, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    settings = {
        "num_beams": BEAMS,
        "num_return_sequences": BEAMS,
        "early_stopping": True,
        "length_penalty": 0.8,
        "max_new_tokens": TOKENS,
        **options,
    }
    out = model.generate(**inputs, do_sample=False, return_dict_in_generate=True, output_scores=True, **settings)
    first = inputs["input_ids"].shape[1] if family in CAUSAL else 1
    return [_cut(row[first:].tolist()) for row in out.sequences], out.sequences_scores.tolist()


def _cut(tokens):
    stops = [place for place, token in enumerate(tokens) if token in ENDS]
    return tuple(tokens[: stops[0] + 1] if stops else tokens)


ONE_END = ("mbart", "pegasus", "t5-v1.1", "llama")  # families whose texts end often enough at one token


@pytest.mark.parametrize(
    ("family", "ends"), [*((family, ENDS) for family in FAMILIES), *((family, (END,)) for family in ONE_END)]
)
def test_equals_generate_in_text_and_scores(family, ends, monkeypatch):
    monkeypatch.setattr("tests.unit.test_text_huggingface.ENDS", ends)
    model, texts = writer(family, seed=4, ends=ends), prompts(10)
    ours = _ours(family, model, texts)
    lengths = set()
    for text, found in zip(texts, ours, strict=True):
        tokens, scores = _theirs(family, model, text)
        assert [one.tokens for one in found] == tokens
        assert [one.score for one in found] == pytest.approx(scores, abs=1e-4)
        free = TOKENS - 1 if model.generation_config.forced_eos_token_id is not None else TOKENS
        assert all(one.ended == (one.tokens[-1] in ends and len(one.tokens) <= free) for one in found)
        lengths.update(map(len, tokens))
    assert len(lengths) > 1  # sentences did leave the batch at different steps


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # peft's, which leaves them to the model
@pytest.mark.parametrize("family", ["t5", "bart", "marian", "gpt2", "llama"])
@pytest.mark.parametrize(
    "section", [PromptTuning(kind="prompt", tokens=3), PTuning(kind="p_tuning", tokens=3, width=8)]
)
def test_behind_learned_vectors_equals_generate(family, section):
    model, texts = writer(family, seed=4), prompts(10)
    plain = _ours(family, model, texts)
    adapted = build(section, Loaded(model, None, family, trained_head=True), Task(kind="generation")).eval()
    torch.nn.init.normal_(adapted.prompt_encoder["default"].embedding.weight, std=0.7)
    ours = _ours(family, adapted, texts)
    for text, found in zip(texts, ours, strict=True):
        tokens, scores = _theirs(family, adapted, text)
        assert [one.tokens for one in found] == tokens
        assert [one.score for one in found] == pytest.approx(scores, abs=1e-4)
    assert [[one.tokens for one in found] for found in ours] != [[one.tokens for one in found] for found in plain]


def test_learned_vectors_take_positions():
    model = writer("gpt2", n_positions=16)
    adapted = build(
        PromptTuning(kind="prompt", tokens=6), Loaded(model, None, "", True), Task(kind="generation")
    ).eval()
    words = " ".join(WORDS[:10])
    assert _ours("gpt2", model, [words])[0][0].tokens
    with pytest.raises(DataError, match="prompt 0 has 10 tokens, the model 10 positions"):
        _ours("gpt2", adapted, [words])
    (found, *_) = _ours("gpt2", adapted, [" ".join(WORDS[:9])])[0]
    assert len(found.tokens) == 1


@pytest.mark.parametrize("family", ["marian", "bart", "llama"])
def test_one_beam_is_greedy(family):
    model, texts = writer(family, seed=1), prompts(6)
    ours = _ours(family, model, texts, Decoding(beams=1, max_tokens=TOKENS))
    for text, (found,) in zip(texts, ours, strict=True):
        encoded = tokenizer(ends=family not in CAUSAL)(text, return_tensors="pt")
        out = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            num_beams=1,
            do_sample=False,
            max_new_tokens=TOKENS,
        )
        first = encoded["input_ids"].shape[1] if family in CAUSAL else 1
        assert found.tokens == _cut(out[0, first:].tolist())


def test_rules_of_the_generation_configuration_hold():
    model, texts = writer("bart"), prompts(8)
    model.generation_config.no_repeat_ngram_size = 2
    model.generation_config.bad_words_ids = [[5], [7]]
    model.generation_config.length_penalty = 2.0
    ours = _ours("bart", model, texts, Decoding(beams=BEAMS, hypotheses=BEAMS, max_tokens=TOKENS))
    for text, found in zip(texts, ours, strict=True):
        tokens, scores = _theirs("bart", model, text, length_penalty=2.0)
        assert [one.tokens for one in found] == tokens
        assert [one.score for one in found] == pytest.approx(scores, abs=1e-4)
        assert not any({5, 7} & set(one.tokens) for one in found)


@pytest.mark.parametrize("family", ["bart", "blenderbot", "llama"])
@pytest.mark.parametrize(
    ("rule", "value"),
    [("encoder_no_repeat_ngram_size", 1), ("encoder_no_repeat_ngram_size", 2), ("encoder_repetition_penalty", 1.5)],
)
def test_rules_about_the_source_hold_for_each_sentence_alone(family, rule, value):
    model, texts = writer(family, seed=4), prompts(12, longest=45)
    free = _ours(family, model, texts)
    setattr(model.generation_config, rule, value)
    ours = _ours(family, model, texts)
    for text, found in zip(texts, ours, strict=True):
        tokens, scores = _theirs(family, model, text)
        assert [one.tokens for one in found] == tokens
        assert [one.score for one in found] == pytest.approx(scores, abs=1e-4)
    assert free != ours


def test_each_text_has_a_limit_of_its_own():
    """By the length of its source; a model that forces an end at the limit forces it at this one, and none has ended
    by itself there.
    """
    model, texts = writer("bart"), prompts(10)
    ours = _ours("bart", model, texts, Decoding(beams=2, length_factor=1.5, length_extra=1))
    limits = [8 * math.ceil((1.5 * (len(text.split()) + 1) + 1) / 8) for text in texts]
    for text, limit, (found,) in zip(texts, limits, ours, strict=True):
        tokens, _ = _theirs(
            "bart", model, text, num_beams=2, num_return_sequences=1, length_penalty=1.0, max_new_tokens=limit
        )
        assert found.tokens == tokens[0] and len(found.tokens) <= limit and found.tokens[-1] in ENDS
        assert found.ended == (len(found.tokens) < limit)
    assert len(set(limits)) > 1
    cut = _ours("bart", writer("bart", seed=4, ends=(END,)), texts, Decoding(beams=2, max_tokens=4))
    assert [(len(found.tokens), found.tokens[-1], found.ended) for (found,) in cut] == [(4, END, False)] * len(texts)


def test_batches_do_not_change_the_text():
    model, texts = writer("marian"), prompts(20)
    alone = _ours("marian", model, texts, DECODING.model_copy(update={"tokens_per_batch": 1}))
    together = _ours("marian", model, texts, DECODING.model_copy(update={"tokens_per_batch": 10_000}))
    for one, other in zip(alone, together, strict=True):
        assert [text.tokens for text in one] == [text.tokens for text in other]


def test_a_language_is_what_a_text_starts_with():
    words = tokenizer(special=("w9",))
    engine = HuggingFaceWriter([writer("mbart")], words, "x")
    found = dict(engine.generate(prompts(4), Decoding(beams=2, max_tokens=8, language="w9")))
    assert all(one.texts[0].tokens[0] == words.convert_tokens_to_ids("w9") for one in found.values())
    for code in ("xx", "w8"):  # a piece of words like any other is no language
        with pytest.raises(ModelError, match=rf"decoding\.language: `{code}` is no special token.*w9"):
            list(engine.generate(prompts(1), Decoding(language=code)))


def test_an_ensemble_of_equals_is_its_member_and_of_others_is_the_mean():
    model, other, texts = writer("marian"), writer("marian", seed=3), prompts(6)
    alone = _ours("marian", model, texts)
    both = dict(HuggingFaceWriter([model, model], tokenizer(), "x").generate(texts, DECODING))
    for place, found in enumerate(alone):
        assert [one.tokens for one in both[place].texts] == [one.tokens for one in found]
        assert [one.score for one in both[place].texts] == pytest.approx([one.score for one in found], abs=1e-4)
    ids = tokenizer()(texts[0], return_tensors="pt")["input_ids"]
    prompt = torch.full((1, 1), PAD)
    decoders = [EncoderDecoder(member, ids, torch.ones_like(ids), 1) for member in (model, other)]
    with torch.inference_mode():
        probabilities = [
            member(input_ids=ids, decoder_input_ids=prompt).logits[:, -1].softmax(-1) for member in (model, other)
        ]
        said = Ensemble(decoders).step(prompt)
    torch.testing.assert_close(said.exp(), sum(probabilities) / 2, atol=1e-5, rtol=1e-5)


def test_members_that_cannot_speak_with_one_voice_are_refused():
    with pytest.raises(ModelError, match="must agree in decoder_start_token_id: 0 and 1"):
        HuggingFaceWriter([writer("marian"), writer("bart")], tokenizer(), "x")


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
        ("openai-gpt", {"n_embd": 16, "n_layer": 2, "n_head": 2}),  # takes the whole text in every step
        ("lfm2", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}),
    ],
)
def test_models_without_keys_and_values_of_every_token_are_refused(kind, sizes):
    layers = {"layer_types": ["conv", "full_attention"]} if kind == "lfm2" else {}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=len(WORDS) + 3, **sizes, **layers))
    with pytest.raises(
        ModelError, match=rf"{kind}: goes on from a state of its own or from none .* cannot be searched"
    ):
        HuggingFaceWriter([model], tokenizer(ends=False), "x")


def test_nothing_is_cut_silently():
    model = writer("marian")
    with pytest.raises(DataError, match="prompt 1 has 70 tokens, the model 64 positions"):
        _ours("marian", model, ["w1", " ".join(WORDS[:23] * 3)])
    with pytest.raises(DataError, match="prompt 0 is empty"):
        _ours("llama", writer("llama"), [""])


def test_more_kept_than_searched_is_refused():
    with pytest.raises(ValidationError, match=r"`hypotheses` \(4\) is more than the `beams` \(3\)"):
        Decoding(beams=3, hypotheses=4)


class _Table(DecoderOnly):
    """Log-probabilities from a table [V V]: the last token decides."""

    def __init__(self, table):
        self.table = table
        self.rows: list[int] = []

    def step(self, tokens):
        self.rows.append(len(tokens))
        return self.table[tokens[:, -1]]

    def select(self, rows, sentences):
        pass


def test_finds_the_best_text_where_it_can_be_listed():
    """Against all texts of up to four tokens, with as many beams as there are."""
    torch.manual_seed(0)
    table = torch.randn(4, 4).log_softmax(-1)
    how = Search(beams=64, ends=(END,), length_penalty=0.6)
    (found,) = search(_Table(table), torch.tensor([[START]]), [4], how)

    def texts(so_far, total):
        if so_far and (so_far[-1] == END or len(so_far) == 4):
            yield total / len(so_far) ** 0.6, so_far
            return
        for token in range(4):
            last = so_far[-1] if so_far else START
            yield from texts((*so_far, token), total + float(table[last, token]))

    listed = sorted(texts((), 0.0), reverse=True)[:8]
    assert [one.tokens for one in found[:8]] == [tokens for _, tokens in listed]
    assert [one.score for one in found[:8]] == pytest.approx([score for score, _ in listed], abs=1e-5)


def test_finished_sentences_leave_the_batch():
    table = torch.full((4, 4), -20.0)
    table[2, 1] = table[3, 3] = -0.1  # from 2 a text ends at once, from 3 it goes on
    decoder = _Table(table)
    search(decoder, torch.tensor([[2], [3], [2]]), [6, 6, 6], Search(beams=1, ends=(END,)))
    assert decoder.rows == [3, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("beams", "ends"), [(0, (1,)), (2, ())])
def test_a_search_without_beams_or_ends_is_refused(beams, ends):
    with pytest.raises(ValueError, match="needs a beam and an end token"):
        Search(beams, ends)


@pytest.mark.parametrize("width", [7, BLOCK, 9 * BLOCK, 9 * BLOCK + 1, 30 * BLOCK - 1])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_the_largest_are_found_by_blocks(width, count):
    values = torch.randn(20, width, generator=torch.Generator().manual_seed(width))
    values[3] = values[3].sort().values  # the largest at the end, where no block is whole
    values[4, :count] += 9.0  # all in one block
    values[5] = float("-inf")
    values[5, -count:] = 1.0
    found, places = largest(values, count)
    assert torch.equal(found, values.topk(count).values)
    assert torch.equal(values.gather(1, places), found)
    assert all(len(set(row)) == count for row in places.tolist())
