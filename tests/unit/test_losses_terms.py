"""The loss terms: what they need, what they leave out, what they learn."""

import math
from functools import partial

import pytest
import torch

from configs.objective import (
    AttentionTerm,
    EmbeddingsTerm,
    HiddenTerm,
    LogitsTerm,
    RelationsTerm,
    Schedule,
    TaskTerm,
)
from distill.losses.hidden import Hidden, Projection, hidden_mse
from distill.losses.reduction import Positions, unmasked
from distill.protocols import LossTerm
from distill.types import IGNORED, Needs, Outputs, Shape
from tests.helpers import reference
from tests.helpers.losses import (
    CLASSES,
    SCORES,
    SMALL,
    TERMS,
    batch_of,
    given_to,
    leaves,
    outputs_of,
    rows_of,
    term_of,
    value_and_gradients,
)


@pytest.mark.parametrize("section", TERMS.values(), ids=TERMS)
def test_all_that_a_term_asks_of_the_student_learns(section):
    term = term_of(section)
    batch = batch_of()
    own, taught = given_to(term, batch)
    assert all(gradient.abs().sum() > 0 for gradient in value_and_gradients(term, own, taught, batch)[1])


@pytest.mark.parametrize(
    ("section", "student", "teacher"),
    [
        (HiddenTerm(kind="hidden"), Needs(hidden_states=frozenset({1, 2})), Needs(hidden_states=frozenset({2, 4}))),
        (EmbeddingsTerm(kind="embeddings"), Needs(hidden_states=frozenset({0})), Needs(hidden_states=frozenset({0}))),
        (AttentionTerm(kind="attention"), Needs(attentions=frozenset({1, 2})), Needs(attentions=frozenset({2, 4}))),
        (RelationsTerm(kind="relations"), Needs(relations=frozenset({2})), Needs(relations=frozenset({4}))),
        (LogitsTerm(kind="logits"), Needs(logits=True), Needs(logits=True)),
        (TaskTerm(kind="task"), Needs(logits=True), Needs()),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_needs_are_the_mapped_layers(section, student, teacher):
    term = term_of(section)
    assert (term.student_needs, term.teacher_needs) == (student, teacher)


UNITS = {
    "task": "labelled",
    "logits": "examples",
    "logits huawei": "examples",
    "hidden": "positions",
    "hidden huawei": "padded_positions",
    "embeddings": "positions",
    "attention": "pairs",
    "attention probabilities": "positions",
    "attention huawei": "padded_pairs",
    "relations": "positions",
}


@pytest.mark.parametrize(("name", "unit"), UNITS.items())
def test_units(name, unit):
    assert term_of(TERMS[name]).unit == unit


def test_huawei_terms_over_their_units_are_the_released_losses():
    """Summed over layers, divided by what the window counts: B rows, B·T positions, B·T² pairs, padding included."""
    batch, equal = batch_of(), Shape(4, SMALL.hidden_size, SMALL.heads, 3, 3)
    mask = batch["attention_mask"]
    names = ["logits huawei", "hidden huawei", "attention huawei"]
    own = outputs_of(SMALL, Needs(True, frozenset({1, 2}), frozenset({1, 2})), batch, seed=1)
    taught = outputs_of(equal, Needs(True, frozenset({2, 4}), frozenset({2, 4})), batch, seed=2)
    assert own.logits is not None and taught.logits is not None
    hidden = [reference.huawei_hidden(own.hidden_states[s], taught.hidden_states[t]) for s, t in ((1, 2), (2, 4))]
    maps = [reference.huawei_attention(own.attentions[s], taught.attentions[t], mask) for s, t in ((1, 2), (2, 4))]
    expected = [reference.huawei_logits(own.logits, taught.logits, 1.0), hidden[0] + hidden[1], maps[0] + maps[1]]
    counts = {"examples": 4, "padded_positions": 4 * 5, "padded_pairs": 4 * 5**2}
    for name, released in zip(names, expected, strict=True):
        term = term_of(TERMS[name], teacher=equal)
        loss = term(own, taught, batch) / counts[term.unit]
        torch.testing.assert_close(loss.double(), released, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("logits", partial(reference.kl, temperature=2.0)),
        ("logits ce", reference.ce),
        ("logits rkl", reference.rkl),
        ("logits jsd", partial(reference.jsd, beta=0.3)),
        ("logits mse", reference.mse),
    ],
)
def test_the_divergence_is_the_one_asked_for(name, formula):
    term, batch = term_of(TERMS[name]), batch_of()
    own, taught = given_to(term, batch)
    assert own.logits is not None and taught.logits is not None
    rows = zip(own.logits.double(), taught.logits.double(), strict=True)
    expected = reference.total([formula(s.unbind(), t.unbind()) for s, t in rows])
    torch.testing.assert_close(term(own, taught, batch).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("section", "formula"),
    [
        (HiddenTerm(kind="hidden", layers={1: 4}), reference.hidden_mse),
        (HiddenTerm(kind="hidden", layers={1: 4}, distance="cosine"), reference.hidden_cosine),
        (AttentionTerm(kind="attention", layers={1: 4}), reference.attention_score_mse),
        (AttentionTerm(kind="attention", layers={1: 4}, target="probabilities"), reference.attention_probability_kl),
    ],
    ids=["mse", "cosine", "scores", "probabilities"],
)
def test_the_distance_is_the_one_asked_for(section, formula):
    equal, batch = Shape(4, SMALL.hidden_size, SMALL.heads, 3, 3), batch_of()
    term = term_of(section, teacher=equal)
    own = outputs_of(SMALL, term.student_needs, batch, seed=1)
    taught = outputs_of(equal, term.teacher_needs, batch, seed=2)
    expected = formula(leaves(own)[0].double(), leaves(taught)[0].double(), batch["attention_mask"])
    torch.testing.assert_close(term(own, taught, batch).double(), expected, rtol=1e-5, atol=1e-5)


def test_layers_are_summed():
    batch = batch_of()
    term = term_of(AttentionTerm(kind="attention"))
    own, taught = given_to(term, batch)
    each = [
        reference.attention_score_mse(own.attentions[s], taught.attentions[t], batch["attention_mask"])
        for s, t in ((1, 2), (2, 4))
    ]
    torch.testing.assert_close(term(own, taught, batch).double(), each[0] + each[1])


def test_kinds_of_relation_are_summed():
    batch = batch_of()
    term = term_of(RelationsTerm(kind="relations", pairs=("qk", "vv")))
    own, taught = given_to(term, batch)
    s, t, mask = own.relations[2], taught.relations[4], batch["attention_mask"]
    first = reference.relation_kl((s.query, s.key), (t.query, t.key), mask, 2)
    second = reference.relation_kl((s.value, s.value), (t.value, t.value), mask, 2)
    torch.testing.assert_close(term(own, taught, batch).double(), first + second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_unlabelled_rows_add_nothing_to_the_task(smoothing):
    batch = batch_of()
    term = term_of(TaskTerm(kind="task", label_smoothing=smoothing))
    own = outputs_of(SMALL, term.student_needs, batch, seed=1)
    loss, (gradient,) = value_and_gradients(term, own, Outputs(), batch)
    assert own.logits is not None and batch["labels"][-1] == IGNORED
    rows = zip(own.logits[:3].double().log_softmax(-1), batch["labels"][:3], strict=True)
    by_hand = sum(-(1 - smoothing) * row[label] - smoothing * row.mean() for row, label in rows)
    torch.testing.assert_close(loss.double(), by_hand.detach())
    assert gradient[-1].eq(0).all()


@pytest.mark.parametrize("task", [CLASSES, SCORES], ids=["classes", "scores"])
def test_a_batch_without_labels_is_worth_nothing(task):
    shape = Shape(2, 6, 2, 3, outputs=1 if task is SCORES else 3)
    term = term_of(TaskTerm(kind="task"), task, shape, shape)
    batch = rows_of(batch_of(task=task), slice(3, 4))
    loss, (gradient,) = value_and_gradients(
        term, outputs_of(shape, term.student_needs, batch, seed=1), Outputs(), batch
    )
    assert loss == 0 and gradient.eq(0).all()


def test_squared_error_of_scores():
    shape = Shape(2, 6, 2, 3, outputs=1)
    term = term_of(TaskTerm(kind="task"), SCORES, shape, shape)
    batch = batch_of(task=SCORES)
    own = outputs_of(shape, term.student_needs, batch, seed=1)
    assert own.logits is not None and batch["labels"][-1].isnan()
    expected = (own.logits[:3, 0] - batch["labels"][:3]).square().sum()
    torch.testing.assert_close(term(own, Outputs(), batch), expected)


def test_scores_of_another_shape_than_the_labels_are_refused():
    batch = batch_of(task=SCORES)
    with pytest.raises(ValueError, match=r"\[4, 3\] is not the teacher's \[4, 1\]"):
        term_of(TaskTerm(kind="task"), SCORES)(Outputs(logits=torch.zeros(4, 3)), Outputs(), batch)


def test_the_temperature_follows_its_schedule():
    term = term_of(LogitsTerm(kind="logits", temperature=Schedule(start=4.0, end=1.0)))
    batch = batch_of()
    own, taught = given_to(term, batch)
    for progress, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        batch["progress"] = progress
        fixed = term_of(LogitsTerm(kind="logits", temperature=temperature))
        torch.testing.assert_close(term(own, taught, batch), fixed(own, taught, batch))


@pytest.mark.parametrize("kind", ["logits", "task"])
def test_logits_that_were_not_given_are_missed(kind):
    with pytest.raises(ValueError, match="gave none"):
        term_of(TERMS[kind])(Outputs(), Outputs(), batch_of())


def sizes(term: LossTerm) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in term.named_parameters()}


def test_projectors_lead_from_the_student_to_the_teacher():
    each = {
        f"projectors.{layer}.{name}": size for layer in (1, 2) for name, size in (("weight", (8, 6)), ("bias", (8,)))
    }
    assert sizes(term_of(HiddenTerm(kind="hidden"))) == each
    shared = {"projectors.shared.weight": (8, 6), "projectors.shared.bias": (8,)}
    assert sizes(term_of(HiddenTerm(kind="hidden", shared=True))) == shared
    two = {"0.weight": (8, 6), "0.bias": (8,), "2.weight": (8, 8), "2.bias": (8,)}
    mlp = {f"projectors.0.{name}": size for name, size in two.items()}
    assert sizes(term_of(EmbeddingsTerm(kind="embeddings", projector="mlp"))) == mlp


def test_equal_widths_take_no_projector_unless_asked_for():
    assert sizes(term_of(HiddenTerm(kind="hidden"), teacher=SMALL)) == {}
    assert sizes(term_of(HiddenTerm(kind="hidden", projector="none"), teacher=SMALL)) == {}
    assert len(sizes(term_of(HiddenTerm(kind="hidden", projector="linear"), teacher=SMALL))) == 4


def test_projectors_are_the_same_for_the_same_seed():
    first, second = (term_of(HiddenTerm(kind="hidden", projector="mlp")) for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.projectors["1"][0].weight, first.projectors["2"][0].weight)


def test_a_position_that_counts_is_projected_and_compared_as_by_hand():
    term = Hidden("hidden", {1: 1}, hidden_mse, "positions", Projection("linear", 6, 8))
    batch = batch_of()
    own, taught = given_to(term, batch)
    layer = term.projectors["1"]
    projected = own.hidden_states[1].double() @ layer.weight.double().T + layer.bias.double()
    expected = reference.hidden_mse(projected, taught.hidden_states[1].double(), batch["attention_mask"])
    torch.testing.assert_close(term(own, taught, batch).double(), expected, rtol=1e-5, atol=1e-5)


def test_positions_are_left_out_or_masked_to_the_same_end():
    """On a GPU the positions stay and carry the mask; the sum and the gradient are the same."""
    batch = batch_of()
    mask, draw = batch["attention_mask"], torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 4, 5, 3, generator=draw)
    found = []
    for places in (unmasked(mask), Positions(keep=mask.flatten())):
        leaf = student.clone().requires_grad_()
        loss, count = hidden_mse(places.rows(leaf), places.rows(teacher), places.keep)
        found.append((loss.detach(), count, torch.autograd.grad(loss, leaf)[0]))
    for left_out, masked in zip(*found, strict=True):
        torch.testing.assert_close(left_out, masked)
    assert unmasked(torch.ones(2, 3)) == Positions()


def test_cosine_of_states_of_zeros_is_defined():
    student = torch.zeros(1, 2, 3, requires_grad=True)
    batch = rows_of(batch_of((2,)), slice(0, 1))
    term = term_of(HiddenTerm(kind="hidden", distance="cosine", layers={1: 1}), student=SMALL, teacher=SMALL)
    taught = torch.ones(1, 2, 3)
    loss = term(Outputs(hidden_states={1: student}), Outputs(hidden_states={1: taught}), batch)
    assert loss.item() == 2.0
    assert math.isfinite(torch.autograd.grad(loss, student)[0].sum().item())
