import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    T5Config,
)

from distill import attention, attention_routes, capture
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


@pytest.fixture
def through_sdpa(monkeypatch):
    """Count what goes through SDPA, and take plain products where they are faster on most processors."""
    calls = []
    through = attention.sdpa_attention_forward

    def counted(module, query, *others, **options):
        calls.append(query.dtype)
        return through(module, query, *others, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    monkeypatch.setattr(attention_routes, "multiplies_small_blocks_well", lambda: False)
    return calls


@pytest.mark.parametrize("padded", [True, False])
def test_plain_products_and_sdpa_agree_on_short_rows(model, batch, padded, monkeypatch, through_sdpa):
    if not padded:
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    kept = batch["attention_mask"].bool()
    plain = _last(model, batch)
    assert through_sdpa == []
    monkeypatch.setattr(attention_routes, "SHORT", 8)
    torch.testing.assert_close(_last(model, batch)[kept], plain[kept], atol=1e-6, rtol=1e-5)
    assert len(through_sdpa) == 2


def test_where_small_products_are_fast_short_rows_go_through_sdpa_unless_bf16_learns(
    model, batch, monkeypatch, through_sdpa
):
    monkeypatch.setattr(attention_routes, "multiplies_small_blocks_well", lambda: True)
    _last(model, batch)
    assert len(through_sdpa) == 2
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _last(model, batch)
    assert len(through_sdpa) == 4
    with torch.autocast("cpu", torch.bfloat16):
        _last(model, batch)
    assert len(through_sdpa) == 4
    _last(model.train(), batch)  # with dropout
    assert len(through_sdpa) == 4


@pytest.mark.parametrize("frozen", [False, True], ids=["all learns", "a bias is frozen"])
@pytest.mark.parametrize("family", [LlamaConfig, T5Config, GPT2Config], ids=["llama", "t5", "gpt2"])
def test_a_cpu_learns_short_rows_in_bf16_without_the_kernel_that_is_slow_then(family, frozen, through_sdpa):
    """SDPA's gradient in bf16 takes many times as long; with a causal mask, a position bias, no mask at all."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 64}
    kinds = {LlamaConfig: {"intermediate_size": 32}, T5Config: {"d_ff": 32, "d_kv": 8}, GPT2Config: {}}
    made = (AutoModelForSeq2SeqLM if family is T5Config else AutoModelForCausalLM).from_config(
        family(**sizes, **kinds[family])
    )
    capture.prepare(made)
    made.eval()
    for name, weight in made.named_parameters():
        weight.requires_grad_(not (frozen and "relative_attention_bias" in name))
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    more = {"decoder_input_ids": ids} if family is T5Config else {}

    def gradient(precise: bool):
        made.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            logits = made(input_ids=ids, use_cache=False, **more).logits
        logits.float().logsumexp(-1).sum().backward()
        return made.get_input_embeddings().weight.grad.clone()

    expected = gradient(precise=True)
    assert through_sdpa  # an implicit mask, or a bias, is SDPA's otherwise
    through_sdpa.clear()
    found = gradient(precise=False)
    assert through_sdpa == []
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.999


def test_dropout_keeps_the_expectation_and_its_gradient():
    torch.manual_seed(0)
    weights = torch.rand(4, 3, 50, 50).softmax(-1).requires_grad_()
    value = torch.rand(4, 3, 50, 8)
    draws = torch.stack([attention_routes.average(weights, value, 0.25) for _ in range(300)])
    exact = weights @ value
    torch.testing.assert_close(draws.mean(0), exact, atol=0.03, rtol=0.0)
    assert (draws[0] - exact).abs().max() > 0.01
    draws.mean(0).sum().backward()
    torch.testing.assert_close(weights.grad.mean(), value.sum(-1).mean(), atol=0.02, rtol=0.0)


def test_without_dropout_nothing_is_drawn():
    weights, value = torch.rand(1, 2, 5, 5), torch.rand(1, 2, 5, 3)
    before = torch.get_rng_state()
    assert torch.equal(attention_routes.average(weights, value, 0.0), weights @ value)
    assert torch.equal(before, torch.get_rng_state())
