"""Logits at hidden tokens alone are those of a pass over all positions, in every family that finds hidden tokens."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from configs.adapters import PromptTuning
from configs.data import Task
from distill import capture
from distill.models import Loaded
from distill.only_hidden import as_said
from distill.types import IGNORED, Needs
from students.adapters.build import build
from teachers.live import LiveTeacher
from teachers.most_likely import MostLikely

VOCABULARY, ROWS, LENGTH = 50, 3, 7
SIZES = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "albert": {"embedding_size": 8},
    "distilbert": {"n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
    "mpnet": {},
    "camembert": {},
    "xlm-roberta": {},
    "deberta-v2": {},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
}
EVERY = Needs(logits=True, hidden_states=frozenset({0, 1, 2}))


def model_of(kind: str) -> Any:
    sizes = {"vocab_size": VOCABULARY, "pad_token_id": 0, "max_position_embeddings": 32, **SIZES, **KINDS[kind]}
    torch.manual_seed(0)
    made = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    capture.prepare(made)
    return made


def batches() -> tuple[Any, Any]:
    """Return a batch that says which tokens are hidden, and the same without."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (ROWS, LENGTH), generator=draw)
    gold = torch.full_like(ids, IGNORED)
    hidden = torch.tensor([1, 5, 8, 20])
    gold.view(-1)[hidden] = ids.view(-1)[hidden]
    ids.view(-1)[hidden] = 4
    plain = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": gold}
    return {**plain, "hidden": hidden}, plain


def same(model: Any) -> None:
    batch, plain = batches()
    few, whole = (capture.forward(model, each, EVERY) for each in (batch, plain))
    assert few.logits.shape == (1, 4, VOCABULARY) and whole.logits.shape == (ROWS, LENGTH, VOCABULARY)
    torch.testing.assert_close(few.logits[0], whole.logits.flatten(0, 1)[batch["hidden"]], atol=1e-6, rtol=0)
    assert torch.equal(as_said(batch)["labels"][0], plain["labels"].flatten()[batch["hidden"]])
    assert as_said(plain) is plain
    assert few.hidden_states.keys() == whole.hidden_states.keys() == {0, 1, 2}
    for layer, states in whole.hidden_states.items():
        assert torch.equal(few.hidden_states[layer], states)


@pytest.mark.parametrize("kind", KINDS)
def test_few_positions_give_the_logits_that_all_give(kind):
    same(model_of(kind))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_learned_vectors_before_the_tokens_do_not_move_them(kind):
    loaded = Loaded(model_of(kind), None, f"a tiny {kind}", trained_head=True)  # type: ignore[arg-type]
    adapted = build(PromptTuning(kind="prompt", tokens=3), loaded, Task(kind="masked_lm"))
    capture.prepare(adapted)
    same(adapted.eval())


def test_the_most_likely_of_hidden_tokens_are_those_of_a_teacher_that_says_all():
    loaded = Loaded(model_of("bert"), None, "a tiny bert", trained_head=True)  # type: ignore[arg-type]
    teacher = MostLikely(LiveTeacher(loaded, Task(kind="masked_lm"), "x"), 5)
    batch, plain = batches()
    few, whole = (teacher(each, Needs(logits=True)).top_k for each in (batch, plain))
    assert few.indices.shape == (1, 4, 5) and whole.indices.shape == (ROWS, LENGTH, 5)
    assert torch.equal(few.indices[0], whole.indices.flatten(0, 1)[batch["hidden"]])
    torch.testing.assert_close(few.log_probs[0], whole.log_probs.flatten(0, 1)[batch["hidden"]], atol=1e-6, rtol=0)
