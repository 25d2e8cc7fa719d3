"""Laws of every loss term: sums that any split adds up to, padding and unlabelled rows that are inert, fp32 inside."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.types import IGNORED, Outputs, Shape
from tests.helpers.losses import (
    BIG,
    CLASSES,
    SCORES,
    SMALL,
    TERMS,
    batch_of,
    cast,
    check_term,
    mapped,
    outputs_of,
    term_of,
    value_and_gradients,
)

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**20)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
fast = settings(max_examples=10, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", TERMS)
@fast
@given(LENGTHS, SEEDS, DTYPES)
def test_every_term(name, lengths, seed, dtype):
    check_term(term_of(TERMS[name]), (SMALL, BIG), batch_of(lengths, seed=seed), seed, dtype)


@pytest.mark.parametrize("name", ["task", "logits mse"])
@fast
@given(LENGTHS, SEEDS, DTYPES)
def test_every_term_for_scores(name, lengths, seed, dtype):
    small, big = (Shape(s.layers, s.hidden_size, s.heads, s.head_size, outputs=1) for s in (SMALL, BIG))
    term = term_of(TERMS[name], SCORES, small, big)
    check_term(term, (small, big), batch_of(lengths, SCORES, seed), seed, dtype)


@pytest.mark.parametrize("enabled", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("name", [name for name in TERMS if name != "hidden mlp"])
def test_half_types_are_computed_in_fp32(name, enabled):
    """Given the same numbers, a half type changes nothing; with equal widths there is no projector to round them."""
    equal = Shape(BIG.layers, SMALL.hidden_size, SMALL.heads, SMALL.head_size, SMALL.outputs)
    term, batch = term_of(TERMS[name], teacher=equal), batch_of()
    own = outputs_of(SMALL, term.student_needs, batch, seed=1, dtype=torch.bfloat16)
    taught = outputs_of(equal, term.teacher_needs, batch, seed=2, dtype=torch.bfloat16)
    exact = term(mapped(own, cast(torch.float32)), mapped(taught, cast(torch.float32)), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        torch.testing.assert_close(term(own, taught, batch), exact)


@pytest.mark.parametrize("smoothing", ["task", "task smoothed"])
@fast
@given(LENGTHS, SEEDS, DTYPES)
def test_unlabelled_rows_are_inert(smoothing, lengths, seed, dtype):
    """Rows whose label is −100 change no loss, and get no gradient, whatever the student says of them."""
    term, batch = term_of(TERMS[smoothing], CLASSES), batch_of(lengths, seed=seed)
    own = outputs_of(SMALL, term.student_needs, batch, seed=seed, dtype=dtype)
    loss, (gradient,) = value_and_gradients(term, own, Outputs(), batch)
    assert own.logits is not None
    more = Outputs(logits=torch.cat((own.logits, 100 * torch.ones(3, 3))).detach().to(dtype).requires_grad_())
    batch["labels"] = torch.cat((batch["labels"], torch.full((3,), IGNORED)))
    more_loss, (more_gradient,) = value_and_gradients(term, more, Outputs(), batch)
    torch.testing.assert_close(more_loss, loss)
    torch.testing.assert_close(more_gradient[: len(lengths)], gradient)
    assert more_gradient[len(lengths) :].eq(0).all()
