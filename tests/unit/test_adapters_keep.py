"""Every method on every family: a trained adapter saved, switched off, cut and merged is what it should be."""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from distill import adapters, capture
from distill.errors import ModelError
from distill.types import Needs
from students.student import Student
from tests.helpers import families
from tests.helpers.adapted import CELLS, CHANGES_THE_BASE, MERGEABLE, METHODS, Trained, begin, logits, section

STEPS = 4


@pytest.mark.parametrize(("method", "kind"), CELLS)
def test_saved_switched_off_cut_and_merged_it_is_what_it_should_be(method, kind, tmp_path):
    made = begin(method, kind, "logits")
    for _ in range(STEPS - 2):
        made.step()
    _goes_on(made, method, kind)
    said = logits(made.student, made.batch)
    _is_loaded(made, kind, said, tmp_path)
    if method not in CHANGES_THE_BASE:
        _is_the_base(made, kind)
    if method in MERGEABLE:
        _is_merged(made, said)
    else:
        _is_not_merged(made, said)


def _goes_on(whole: Trained, method: str, kind: str) -> None:
    """A checkpoint holds what learns, and a training goes on from it bit for bit."""
    learns = {name for name, value in whole.module.named_parameters() if value.requires_grad}
    state = copy.deepcopy(whole.module.state_dict())
    assert learns <= set(state) <= learns | {name for name, _ in whole.module.named_buffers(remove_duplicate=False)}
    again = begin(method, kind, "logits")
    again.module.load_state_dict(state, strict=False)
    again.optimiser.load_state_dict(copy.deepcopy(whole.optimiser.state_dict()))
    again.losses = list(whole.losses)
    for made in (whole, again):
        made.step()
        made.step()
    assert again.losses == whole.losses
    for (name, found), right in zip(again.student.named_parameters(), whole.student.parameters(), strict=True):
        assert torch.equal(found, right), name


def _is_loaded(made: Trained, kind: str, said: Tensor, folder: Path) -> None:
    """What is saved says the same under another name, and holds no frozen weight."""
    adapters.save(made.student.model, folder)
    again = adapters.add(families.loaded(kind).model, folder, "another", "here")
    torch.testing.assert_close(logits(Student(again, has_head=True), made.batch), said, atol=1e-6, rtol=0)
    frozen = adapters.roles(made.student.model)["frozen"]
    assert not (folder / "model.safetensors").exists()
    assert sum(value.numel() for value in load_file(folder / adapters.WEIGHTS).values()) < frozen


def _is_the_base(made: Trained, kind: str) -> None:
    base = families.loaded(kind).model.eval()
    capture.prepare(base)
    trains = [name for name, value in made.student.named_parameters() if value.requires_grad]
    with torch.no_grad(), adapters.switched_off(made.student.model) as model:
        found = capture.forward(model.eval(), made.batch, Needs(logits=True)).logits
        assert torch.equal(found, capture.forward(base, made.batch, Needs(logits=True)).logits)
    assert trains == [name for name, value in made.student.named_parameters() if value.requires_grad]


def _is_merged(made: Trained, said: Tensor) -> None:
    merged = adapters.merged(made.student.model, "here")
    assert not isinstance(merged, PeftModel)
    assert not any("modular" in name or "lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(Student(merged, has_head=True), made.batch), said, atol=1e-5, rtol=0)


def _is_not_merged(made: Trained, said: Tensor) -> None:
    """It says so before anything is changed."""
    with pytest.raises(ModelError, match=r"cannot be merged|no place in the weights"):
        adapters.merged(made.student.model, "here")
    assert torch.equal(logits(made.student, made.batch), said)


def test_the_sections_know_which_methods_merge():
    assert {method for method in METHODS if section(method).mergeable} == set(MERGEABLE)
