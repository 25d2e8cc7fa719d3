"""Every method on every family under every kind of objective: the loss falls, and only what should moves."""

from pathlib import Path

import pytest
import torch

from distill.errors import ModelError
from distill.types import Needs
from tests.helpers import families
from tests.helpers.adapted import CELLS, IMPOSSIBLE, TERMS, UNREACHED, adapted, begin, full_batch, table

STEPS = 4


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # the copy that learns is the encoder's own
@pytest.mark.parametrize(("method", "kind"), CELLS)
def test_under_every_objective_the_loss_falls_and_only_what_should_moves(method, kind):
    made = None
    for terms in TERMS:
        if terms in UNREACHED.get(method, {}).get(kind, ()):
            with pytest.raises(ModelError, match="nothing that the objective looks at"):
                begin(method, kind, terms, made)
            continue
        made = begin(method, kind, terms, made)
        before = {name: value.detach().clone() for name, value in made.student.named_parameters()}
        for _ in range(STEPS):
            made.step()
        assert made.losses[-1] < made.losses[0], (terms, made.losses)
        for name, value in made.student.named_parameters():
            learns = ".default" in name or "prompt_encoder" in name or "modular_shared" in name
            assert learns or not value.requires_grad, name
            assert value.requires_grad or torch.equal(value, before[name]), name
            assert value.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(("method", "kind"), CELLS)
def test_with_products_in_bf16_it_learns_much_the_same(method, kind):
    made, halved = begin(method, kind, "logits"), begin(method, kind, "logits")
    for _ in range(2):
        made.step()
        with torch.autocast("cpu", torch.bfloat16):
            halved.step()
    assert halved.losses == pytest.approx(made.losses, rel=0.1)
    assert all(value.dtype == torch.float32 for value in halved.student.parameters())


@pytest.mark.parametrize(("method", "kind"), IMPOSSIBLE)
def test_what_cannot_be_says_why(method, kind):
    with pytest.raises(ModelError, match=IMPOSSIBLE[method, kind]):
        adapted(method, kind)


@pytest.mark.parametrize("kind", ["bert", "marian", "gpt2"])
@pytest.mark.parametrize("method", ["prompt tuning", "P-tuning"])
def test_virtual_tokens_are_seen_by_no_loss(method, kind):
    """What is left are the values that the adapted model itself gives behind them."""
    student, batch, layers = adapted(method, kind).eval(), full_batch(kind), frozenset({1, 2})
    own = student(batch, Needs(True, layers, layers, layers))
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids") if name in batch}
    student.model.get_base_model().set_attn_implementation("eager")  # which tells probabilities
    raw = student.model(**given, output_hidden_states=True, output_attentions=True)
    side = "encoder_" if kind == "marian" else ""
    length = batch["input_ids"].shape[1]
    real = batch["attention_mask"].bool()
    for layer in layers:
        states = raw[f"{side}hidden_states"][layer][:, -length:]
        torch.testing.assert_close(own.hidden_states[layer][real], states[real], atol=1e-5, rtol=0)
        told = raw[f"{side}attentions"][layer - 1][..., -length:, -length:]
        assert own.relations[layer].key.shape[2] == length
        for row, count in enumerate(batch["attention_mask"].sum(1).tolist()):
            scores, found = (values[row, :, :count, :count] for values in (own.attentions[layer], told))
            later = torch.ones(count, count, dtype=torch.bool).triu(1) & (kind == "gpt2")
            seen = scores.masked_fill(later, -torch.inf).softmax(-1)
            torch.testing.assert_close(seen, found / found.sum(-1, keepdim=True), atol=1e-5, rtol=0)
    logits = raw.logits[:, -length:] if kind == "gpt2" else raw.logits
    assert own.logits.shape == logits.shape
    where = real if kind == "gpt2" else torch.ones(logits.shape[:-1], dtype=torch.bool)
    torch.testing.assert_close(own.logits[where], logits[where], atol=1e-5, rtol=0)


def test_the_table_of_the_docs_is_what_is_tried():
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    assert table() in page


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_b_learns_faster_than_a(kind):
    made = begin("LoRA+", kind, "logits")
    names = {id(value): name for name, value in made.student.named_parameters()}
    rates = [(names[id(v)], group["lr"]) for group in made.optimiser.param_groups for v in group["params"]]
    assert {rate for name, rate in rates if "lora_B" in name} == {0.16}
    assert {rate for name, rate in rates if "lora_B" not in name} == {0.01}
