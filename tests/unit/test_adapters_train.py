"""Every method on every family under every kind of objective: the loss falls, and only what should moves."""

from pathlib import Path

import pytest
import torch

from distill.errors import ModelError
from distill.types import Needs
from students.student import Student
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


@pytest.mark.parametrize(("method", "kind"), IMPOSSIBLE)
def test_what_cannot_be_says_why(method, kind):
    with pytest.raises(ModelError, match=IMPOSSIBLE[method, kind]):
        adapted(method, kind)


@pytest.mark.parametrize("kind", ["bert", "marian", "gpt2"])
@pytest.mark.parametrize("method", ["prompt tuning", "P-tuning"])
def test_virtual_tokens_are_seen_by_no_loss(method, kind):
    student = adapted(method, kind).eval()
    batch = full_batch(kind)
    layers = frozenset({1, 2})
    plain = Student(families.loaded(kind).model, has_head=True).eval()
    needs = Needs(True, layers, layers, layers)
    own, base = student(batch, needs), plain(batch, needs)
    assert own.logits.shape == base.logits.shape
    for layer in layers:
        assert own.hidden_states[layer].shape == base.hidden_states[layer].shape
        assert own.attentions[layer].shape == base.attentions[layer].shape
        assert own.relations[layer].key.shape == base.relations[layer].key.shape


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
