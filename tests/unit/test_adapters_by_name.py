"""Methods of peft's by name: what they put before keys, what they ask for, where they run, what comes back of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from configs.adapters import Adapter
from distill import adapters, merging
from distill.errors import ModelError
from distill.types import Layers, Needs
from distill.virtual import Learned, learned
from students.adapters.build import build
from students.student import Student
from tests.helpers import families
from tests.helpers.adapted import full_batch, logits

TOKENS = {"token_indices": full_batch("bert")["input_ids"][0, :2].tolist()}
CPT = {"cpt_token_ids": [3, 4]}
CARTRIDGE = {"num_virtual_tokens": 3}


def student_of(kind: str, method: str, **options: Any) -> Student:
    section = TypeAdapter(Adapter).validate_python({"kind": "peft", "method": method, "options": options})
    torch.manual_seed(1)
    model = build(section, families.loaded(kind), families.task_of(kind))
    return Student(model, has_head=True, frozen_head=True)


def learnt(student: Student, kind: str) -> list[float]:
    """Losses of a few steps towards fixed logits."""
    batch, needs = full_batch(kind), Needs(logits=True)
    student.freeze_unused(batch, needs)
    optimiser = torch.optim.Adam([value for value in student.parameters() if value.requires_grad], lr=0.05)
    losses = []
    for _ in range(4):
        said = student(batch, needs).logits
        assert said is not None
        loss = (said - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", ["bert", "t5", "marian", "gpt2", "llama"])
def test_a_cartridge_lengthens_keys_alone_and_no_loss_sees_them(kind: str) -> None:
    blocks, first = frozenset({1, 2}), frozenset({1})
    sides = {"decoder": Layers(first, first, first), "cross": Layers(attentions=first)}
    needs = Needs(True, blocks, blocks, blocks, **(sides if kind in families.BESIDE else {}))
    student, batch = student_of(kind, "cartridge", **CARTRIDGE).eval(), full_batch(kind)
    own, base = student(batch, needs), Student(families.loaded(kind).model, has_head=True).eval()(batch, needs)
    assert learned(student.model) == Learned(keys=3)
    assert own.logits is not None and base.logits is not None and own.logits.shape == base.logits.shape
    assert (own.logits - base.logits).abs().max() > 1e-3
    for side in ("encoder", "decoder", "cross"):
        mine, plain = own.on(side), base.on(side)
        for layer, states in plain.hidden_states.items():
            assert mine.hidden_states[layer].shape == states.shape, (side, layer)
        for layer, scores in plain.attentions.items():
            assert mine.attentions[layer].shape == scores.shape, (side, layer)
        for layer, heads in plain.relations.items():
            for name in ("query", "key", "value"):
                assert getattr(mine.relations[layer], name).shape == getattr(heads, name).shape, (side, layer, name)


@pytest.mark.parametrize(("kind", "layers"), [("marian", 1), ("llama", 2)])
def test_a_cartridge_is_as_deep_as_what_looks_back(kind: str, layers: int) -> None:
    student = student_of(kind, "cartridge", num_frozen_tokens=0, **CARTRIDGE)
    learns = [value for value in student.parameters() if value.requires_grad]
    assert [tuple(value.shape) for value in learns] == [(3, layers * 2 * families.WIDTH)]


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("bert", "cartridge", CARTRIDGE),
        ("t5", "cartridge", CARTRIDGE),
        ("llama", "cpt", CPT),
        ("bert", "trainable_tokens", TOKENS),
        ("t5", "trainable_tokens", TOKENS),
        ("llama", "adaption_prompt", {"adapter_len": 3, "adapter_layers": 1}),
        ("bert", "tinylora", {}),
        ("bert", "unilora", {}),
    ],
)
def test_it_learns_and_comes_back_as_it_was(tmp_path: Path, kind: str, method: str, options: dict[str, Any]) -> None:
    student, batch = student_of(kind, method, **options), full_batch(kind)
    losses = learnt(student, kind)
    assert losses[-1] < losses[0]
    said = logits(student, batch)
    adapters.save(student.model, tmp_path)
    for trainable in (False, True):
        again = adapters.attach(families.loaded(kind).model, tmp_path, "here", trainable=trainable)
        torch.testing.assert_close(logits(Student(again, has_head=True), batch), said, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("poly", {"n_tasks": 2}, "`poly` asks of every row which of several tasks it is of"),
        ("multitask_prompt_tuning", {}, "`multitask_prompt_tuning` asks of every row which"),
        ("shadow", {}, "`shadow` passes more from layer to layer than hidden states"),
        ("xlora", {}, "`xlora` mixes adapters by a table"),
        ("trainable_tokens", {}, r"needs a list of token ids; write `options: \{token_indices: \[...\]\}`"),
        ("cpt", {}, r"needs a list of token ids; write `options: \{cpt_token_ids: \[...\]\}`"),
        (
            "cpt",
            {"cpt_token_ids": [3], "opt_loss_decay_factor": 0.9},
            "`options.opt_loss_decay_factor` is of a loss of",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_read(method: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        student_of("bert", method, **options)


@pytest.mark.parametrize(
    ("kind", "method", "options", "said"),
    [
        (
            "distilbert",
            "cartridge",
            CARTRIDGE,
            r"\.method: `cartridge` does not run in distilbert: Model does not supp",
        ),
        ("roberta", "cartridge", CARTRIDGE, r"\.method: `cartridge` does not run in roberta: "),
        ("bert", "cpt", CPT, r"\.options: CPTConfig only supports task_type = CAUSAL_LM"),
        ("llama", "cpt", {"cpt_token_ids": [3, 4000]}, ": peft refuses: index out of range"),
        ("bert", "trainable_tokens", {"token_indices": [5, 4000]}, ": peft refuses: index 4000 is out of bounds"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_at_set_up(
    kind: str, method: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=rf"^student\.adapter{said}"):
        student_of(kind, method, **options)


def test_a_folder_of_a_method_that_cannot_work_is_refused(tmp_path: Path) -> None:
    (tmp_path / adapters.CONFIG).write_text(json.dumps({"peft_type": "POLY"}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"^teacher\.model: .* is of `POLY`, which asks of every row which of several"):
        adapters.read_config(tmp_path, "teacher.model")


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("bert", "lily", {}),
        ("bert", "cartridge", CARTRIDGE),
        ("llama", "adaption_prompt", {"adapter_len": 3, "adapter_layers": 1}),
    ],
)
def test_what_weights_cannot_take_in_says_so_and_stays(kind: str, method: str, options: dict[str, Any]) -> None:
    student, batch = student_of(kind, method, **options), full_batch(kind)
    said = logits(student, batch)
    with pytest.raises(ModelError, match=r"^here: "):
        merging.plain(student.model, "here")
    assert torch.equal(logits(student, batch), said)
