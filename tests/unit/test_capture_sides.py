"""Inside an encoder-decoder: encoder, decoder, and where that looks at the encoder, against transformers itself."""

import pytest
import torch
from torch import Tensor

from distill import capture
from distill.losses.attention import attention_probability_kl, attention_score_mse
from distill.types import IGNORED, Layers, Needs
from tests.helpers.writers import PAD, VOCABULARY, writer

FAMILIES = ("marian", "bart", "mbart", "m2m_100", "pegasus", "t5", "t5-v1.1")
BOTH = frozenset({1, 2})


@pytest.fixture
def batch() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids, written = (torch.randint(3, len(VOCABULARY), (2, size), generator=draw) for size in (7, 5))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    labels = written.clone()
    labels[1, 3:] = IGNORED
    return {
        "input_ids": ids.masked_fill(mask == 0, PAD),
        "attention_mask": mask,
        "decoder_input_ids": written,
        "labels": labels,
    }


def softmax(scores: Tensor, keys: Tensor | None, *, causal: bool) -> Tensor:
    if keys is not None:
        scores = scores.masked_fill(keys[:, None, None, :] == 0, -1e9)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -1e9)
    return scores.softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_side_equals_what_transformers_gives(family: str, batch: dict[str, Tensor]) -> None:
    model = writer(family).double()
    model.set_attn_implementation("eager")
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    reference = model(**inputs, output_hidden_states=True, output_attentions=True, use_cache=False)
    capture.prepare(model)
    shape = capture.shape_of(model, trained_head=True)
    assert (shape.layers, shape.decoder_layers, shape.outputs) == (2, 2, len(VOCABULARY))
    offers = capture.offers_of(model, shape)
    states = frozenset({0, 1, 2})
    inside = Layers(states, BOTH, BOTH)
    needs = Needs(True, states, BOTH, BOTH, decoder=inside, cross=Layers(attentions=BOTH))
    assert needs - offers == Needs()
    found = capture.forward(model, batch, needs)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(found.logits, reference.logits, **close)
    kept = batch["attention_mask"].bool()
    for layer in states:
        torch.testing.assert_close(
            found.hidden_states[layer][kept], reference.encoder_hidden_states[layer][kept], **close
        )
        torch.testing.assert_close(found.decoder.hidden_states[layer], reference.decoder_hidden_states[layer], **close)
    for layer in BOTH:
        cross = softmax(found.cross.attentions[layer], batch["attention_mask"], causal=False)
        torch.testing.assert_close(cross, reference.cross_attentions[layer - 1], **close)
        if family.startswith("t5"):
            continue  # adds a bias by distance to its own scores
        own = softmax(found.attentions[layer], batch["attention_mask"], causal=False)
        torch.testing.assert_close(own[0], reference.encoder_attentions[layer - 1][0], **close)
        written = softmax(found.decoder.attentions[layer], None, causal=True)
        torch.testing.assert_close(written, reference.decoder_attentions[layer - 1], **close)
        heads = found.decoder.relations[layer]
        scores = heads.query @ heads.key.transpose(2, 3) / heads.query.shape[-1] ** 0.5
        torch.testing.assert_close(scores, found.decoder.attentions[layer], **close)


def test_an_encoder_with_attention_of_its_own_offers_states_alone() -> None:
    model = writer("led")
    capture.prepare(model)
    offers = capture.offers_of(model, capture.shape_of(model, trained_head=True))
    assert offers.decoder == Layers(frozenset({0, 1, 2}))
    assert offers.attentions == offers.cross.attentions == frozenset()


@pytest.mark.parametrize(("family", "causal"), [("gpt2", True), ("llama", True), ("marian", False)])
def test_a_model_that_does_not_look_ahead_is_known(family: str, causal: bool) -> None:
    model = writer(family)
    capture.prepare(model)
    assert capture.shape_of(model, trained_head=True).causal == causal


def _pairs(queries: Tensor, keys: Tensor, *, causal: bool) -> list[tuple[int, int, int]]:
    return [
        (row, query, key)
        for row in range(queries.shape[0])
        for query in range(queries.shape[1])
        for key in range(keys.shape[1])
        if queries[row, query] and keys[row, key] and not (causal and key > query)
    ]


@pytest.mark.parametrize("side", ["decoder", "cross"])
def test_scores_are_compared_where_a_decoder_looks(side: str, batch: dict[str, Tensor]) -> None:
    draw = torch.Generator().manual_seed(0)
    queries = batch["labels"] != IGNORED
    causal = side == "decoder"
    keys = queries if causal else batch["attention_mask"].bool()
    student, teacher = (torch.randn(2, 3, 5, keys.shape[1], generator=draw, dtype=torch.float64) for _ in range(2))
    arguments = [queries] if causal else [queries, keys]
    total, count = attention_score_mse(student, teacher, *arguments, causal=causal)
    pairs = _pairs(queries, keys, causal=causal)
    expected = sum((student[b, :, q, k] - teacher[b, :, q, k]).square().mean() for b, q, k in pairs)
    assert int(count) == len(pairs)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("side", ["decoder", "cross"])
def test_probabilities_run_over_the_keys_a_decoder_looks_at(side: str, batch: dict[str, Tensor]) -> None:
    draw = torch.Generator().manual_seed(0)
    queries = batch["labels"] != IGNORED
    causal = side == "decoder"
    keys = queries if causal else batch["attention_mask"].bool()
    student, teacher = (torch.randn(2, 3, 5, keys.shape[1], generator=draw, dtype=torch.float64) for _ in range(2))
    total, count = attention_probability_kl(
        student, teacher, *([queries] if causal else [queries, keys]), causal=causal
    )
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        for query in range(5):
            seen = [k for b, q, k in _pairs(queries, keys, causal=causal) if (b, q) == (row, query)]
            if seen:
                own, taught = (side[row, :, query, seen].log_softmax(-1) for side in (student, teacher))
                expected += (taught.exp() * (taught - own)).sum(-1).mean()
    assert int(count) == int(queries.sum())
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_stay_in_the_type_they_are_computed_in(family: str, batch: dict[str, Tensor]) -> None:
    """Marian's and BART's models add a bias in fp32 to them; an opus-mt model's is not 0."""
    model = writer(family)
    bias = model._buffers.get("final_logits_bias")
    assert (bias is not None) == (family in {"marian", "bart", "mbart", "pegasus"})
    if bias is not None:
        bias.copy_(torch.linspace(-3.0, 3.0, bias.numel()))
    capture.prepare(model)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.autocast("cpu", torch.bfloat16):
        found = capture.forward(model, batch, Needs(logits=True)).logits
        added_in_fp32 = model(**inputs, use_cache=False).logits
    assert found.dtype == torch.bfloat16
    of_three = 2.0**-7  # the bias has 8 bits, and so has the sum
    torch.testing.assert_close(found.float(), added_in_fp32.float(), atol=of_three, rtol=2.0**-8)
    assert capture.forward(model, batch, Needs(logits=True)).logits.dtype == torch.float32
    if bias is not None:
        assert model.final_logits_bias is bias and bias.dtype == torch.float32  # as it is saved
