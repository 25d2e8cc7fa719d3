import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from configs.students import SizedStudent
from distill import attention, capture
from distill.architecture import make_config, vocabulary_of
from distill.types import Needs

FAMILIES = ("bert", "roberta", "distilbert", "electra", "albert", "modernbert", "gpt2", "llama", "deberta-v2")
CAUSAL = ("gpt2", "llama")
NO_ATTENTION = ("deberta-v2",)


def _model(kind: str):
    teacher = BertConfig(vocab_size=100, pad_token_id=0)
    sizes = SizedStudent(kind="sizes", architecture=kind, layers=3, hidden_size=32, intermediate_size=64, heads=4)
    options = {"num_key_value_heads": 2} if kind == "llama" else {}
    config = make_config(sizes.model_copy(update={"options": options}), kind, vocabulary_of(teacher, kind), "student")
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.fixture
def batch():
    ids = torch.randint(5, 100, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("kind", FAMILIES)
def test_equals_eager_attention_and_hidden_states_of_transformers(kind, batch):
    model = _model(kind)
    if kind not in NO_ATTENTION:
        model.set_attn_implementation("eager")
    reference = model(**batch, output_hidden_states=True, output_attentions=True)
    capture.prepare(model)
    offers = capture.offers_of(model, capture.shape_of(model, trained_head=True))
    assert bool(offers.attentions) == (kind not in NO_ATTENTION)
    layers = frozenset({1, 3}) & offers.attentions
    outputs = capture.forward(model, batch, Needs(True, frozenset({0, 2, 3}), layers, layers))
    kept = batch["attention_mask"].bool()
    torch.testing.assert_close(outputs.logits, reference.logits, atol=1e-6, rtol=1e-5)
    assert outputs.hidden_states.keys() == {0, 2, 3} and outputs.attentions.keys() == layers == outputs.relations.keys()
    for layer, states in outputs.hidden_states.items():
        torch.testing.assert_close(states[kept], reference.hidden_states[layer][kept], atol=1e-6, rtol=1e-5)
    for layer, scores in outputs.attentions.items():
        masked = scores.masked_fill(~kept[:, None, None, :], -1e9)
        if kind in CAUSAL:
            masked = masked.masked_fill(torch.ones(7, 7).triu(1).bool(), -1e9)
        torch.testing.assert_close(masked.softmax(-1)[0], reference.attentions[layer - 1][0], atol=1e-6, rtol=1e-5)
        heads = outputs.relations[layer]
        key = heads.key.repeat_interleave(heads.query.shape[1] // heads.key.shape[1], 1)
        torch.testing.assert_close(heads.query @ key.transpose(2, 3) / heads.query.shape[-1] ** 0.5, scores)


def test_gradients_flow_through_what_is_captured(batch):
    model = _model("bert").train()
    capture.prepare(model)
    outputs = capture.forward(model, batch, Needs(attentions=frozenset({2})))
    outputs.attentions[2].square().sum().backward()
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert "bert.encoder.layer.1.attention.self.query.weight" in grads
    assert not any(name.startswith(("bert.encoder.layer.2", "classifier")) for name in grads)


def test_nothing_is_kept_after_the_pass(batch):
    model = _model("bert")
    capture.prepare(model)
    capture.forward(model, batch, Needs(attentions=frozenset({1})))
    assert attention._active.get() is None
    assert capture.forward(model, batch, Needs(logits=True)).attentions == {}


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in NO_ATTENTION])
def test_all_relations_of_a_layer_have_one_shape(kind, batch):
    """Also where heads share keys and values (Llama): head h attends with the key it shares."""
    model = _model(kind)
    capture.prepare(model)
    outputs = capture.forward(model, batch, Needs(attentions=frozenset({2}), relations=frozenset({2})))
    heads = outputs.relations[2]
    assert heads.query.shape == heads.key.shape == heads.value.shape == (2, 4, 7, 8)
    scores = heads.query @ heads.key.transpose(-1, -2) / 8**0.5
    torch.testing.assert_close(outputs.attentions[2][0], scores[0], atol=1e-5, rtol=1e-5)
