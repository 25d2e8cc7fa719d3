"""A fusion sits where its members do, and only there."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from configs.adapters import AnyAdapter, Bottleneck, Fusion
from distill import adapters
from distill.errors import ModelError
from students.adapters.build import build
from tests.helpers.families import batch, loaded, task_of


def built(section: AnyAdapter, kind: str) -> PeftModel:
    return build(section, loaded(kind), task_of(kind)).eval()


def member(folder: Path, kind: str, **numbers: object) -> str:
    adapters.save(built(Bottleneck.model_validate({"kind": "bottleneck", "size": 4, **numbers}), kind), folder)
    return str(folder)


def fuse(kind: str, first: str, second: str) -> PeftModel:
    return built(Fusion(kind="fusion", of={"first": first, "second": second}), kind)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_layers_that_the_members_leave_out_have_no_attention(tmp_path: Path, kind: str) -> None:
    settings = {"place": "pfeiffer", "leave_out": (0,)}
    model = fuse(kind, member(tmp_path / "a", kind, **settings), member(tmp_path / "b", kind, **settings))
    inputs = {name: tensor for name, tensor in batch(kind).items() if name != "labels"}
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()
    assert sum(name.endswith("default.query.weight") for name, _ in model.named_parameters()) == 1


@pytest.mark.parametrize("other", [{"leave_out": (1,)}, {"place": "parallel"}, {"place": "houlsby"}])
def test_members_at_other_places_or_of_another_form_are_refused(tmp_path: Path, other: dict[str, object]) -> None:
    first = member(tmp_path / "a", "gpt2", place="pfeiffer")
    with pytest.raises(ModelError, match=r"student\.adapter\.of: the adapters sit at different places, or enter there"):
        fuse("gpt2", first, member(tmp_path / "b", "gpt2", **{"place": "pfeiffer", **other}))
