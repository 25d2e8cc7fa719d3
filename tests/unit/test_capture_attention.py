import pytest
import torch
from transformers import AutoModel, BertConfig

from distill import attention, capture
from distill.types import Needs


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = AutoModel.from_config(
        BertConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, intermediate_size=64)
    )
    capture.prepare(made)
    return made.eval()


@pytest.fixture
def batch():
    ids = torch.randint(5, 100, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([9, 4, 1])[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def _last(model, batch):
    return capture.forward(model, batch, Needs(hidden_states=frozenset({2}))).hidden_states[2]


@pytest.mark.parametrize("padded", [True, False])
def test_plain_products_and_sdpa_agree_on_short_rows(model, batch, padded, monkeypatch):
    if not padded:
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    kept = batch["attention_mask"].bool()
    plain = _last(model, batch)
    calls = []
    through = attention.sdpa_attention_forward
    monkeypatch.setattr(attention, "SHORT", 8)
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *a, **k: calls.append(1) or through(*a, **k))
    torch.testing.assert_close(_last(model, batch)[kept], plain[kept], atol=1e-6, rtol=1e-5)
    assert len(calls) == 2


def test_dropout_keeps_the_expectation_and_its_gradient():
    torch.manual_seed(0)
    weights = torch.rand(4, 3, 50, 50).softmax(-1).requires_grad_()
    value = torch.rand(4, 3, 50, 8)
    draws = torch.stack([attention._average(weights, value, 0.25) for _ in range(300)])
    exact = weights @ value
    torch.testing.assert_close(draws.mean(0), exact, atol=0.03, rtol=0.0)
    assert (draws[0] - exact).abs().max() > 0.01
    draws.mean(0).sum().backward()
    torch.testing.assert_close(weights.grad.mean(), value.sum(-1).mean(), atol=0.02, rtol=0.0)


def test_without_dropout_nothing_is_drawn():
    weights, value = torch.rand(1, 2, 5, 5), torch.rand(1, 2, 5, 3)
    before = torch.get_rng_state()
    assert torch.equal(attention._average(weights, value, 0.0), weights @ value)
    assert torch.equal(before, torch.get_rng_state())
