"""Architectures whose parts differ from layer to layer, or in width, take the methods that meet them there."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from configs.adapters import Adapter
from distill import adapters, merging
from distill.models import Loaded
from distill.types import Needs
from students.adapters.build import build
from students.student import Student
from tests.helpers.adapted import full_batch, logits
from tests.unit.test_adapters_invertible import TASK, masked_model


def trained(section: dict[str, Any], loaded: Loaded) -> Student:
    """A student whose adapter has moved by a step of its own gradient."""
    student = Student(build(TypeAdapter(Adapter).validate_python(section), loaded, TASK), has_head=True)
    said = student(full_batch("bert"), Needs(logits=True)).logits
    assert isinstance(said, Tensor)
    said.square().mean().backward()  # type: ignore[no-untyped-call]
    learns = {name: value for name, value in student.named_parameters() if value.requires_grad}
    assert learns and all(value.grad is not None for value in learns.values())
    with torch.no_grad():
        for value in learns.values():
            value -= 0.1 * value.grad.sign()  # type: ignore[union-attr]
    return student


def test_norms_that_modernbert_leaves_out_are_left_out(tmp_path: Path) -> None:
    loaded = masked_model("modernbert")
    plain = copy.deepcopy(loaded.model)
    student = trained({"kind": "norms"}, loaded)
    norms = [name for name, module in plain.named_modules() if isinstance(module, torch.nn.LayerNorm)]
    inside = [name for name in norms if name.startswith("model.")]
    learns = [name for name, value in student.named_parameters() if value.requires_grad]
    assert len(learns) == len(inside) > 1 and not any("layers.0.attn_norm" in name for name in learns)
    said = logits(student, full_batch("bert"))
    adapters.save(student.model, tmp_path)
    again = Student(adapters.attach(plain, tmp_path, "a test"), has_head=True)
    torch.testing.assert_close(logits(again, full_batch("bert")), said, atol=0, rtol=0)
    merged = Student(merging.plain(student.model, "a test"), has_head=True)
    torch.testing.assert_close(logits(merged, full_batch("bert")), said)


@pytest.mark.parametrize("kind", ["albert", "electra"])
@pytest.mark.parametrize("method", [{"kind": "prompt", "tokens": 3}, {"kind": "p_tuning", "tokens": 3, "width": 8}])
def test_learned_tokens_are_as_wide_as_the_embeddings(kind: str, method: dict[str, Any], tmp_path: Path) -> None:
    loaded = masked_model(kind)
    plain = copy.deepcopy(loaded.model)
    before = logits(Student(copy.deepcopy(plain), has_head=True), full_batch("bert"))
    student = trained(method, loaded)
    said = logits(student, full_batch("bert"))
    assert said.shape == before.shape and not torch.allclose(said, before, atol=1e-4)
    adapters.save(student.model, tmp_path)
    again = Student(adapters.attach(plain, tmp_path, "a test"), has_head=True)
    torch.testing.assert_close(logits(again, full_batch("bert")), said)
