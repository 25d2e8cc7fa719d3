"""A fusion sits where its members do, and only there."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from configs.adapters import AnyAdapter, Bottleneck, Fusion
from configs.data import Task
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


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_members_come_from_tasks_with_other_classes_and_leave_their_heads_behind(tmp_path: Path, kind: str) -> None:
    task = Task(kind="classification", labels=("a", "b", "c", "d", "e"))
    section = Bottleneck(kind="bottleneck", place="pfeiffer", size=4)
    members = [tmp_path / name for name in ("five", "more")]
    for seed, folder in enumerate(members):
        adapters.save(build(section, loaded(kind, seed=seed, task=task), task), folder)
    model = fuse(kind, *map(str, members))
    weights = load_file(members[1] / "adapter_model.safetensors")
    held = dict(model.named_parameters())
    inside = [name for name in weights if ".down.weight" in name]
    assert inside and any("classifier" in name for name in weights)
    for name in inside:
        key = name.replace(".down.weight", ".second.down.weight")
        torch.testing.assert_close(held[key], weights[name], atol=0, rtol=0)
    inputs = {name: tensor for name, tensor in batch(kind).items() if name != "labels"}
    with torch.no_grad():
        assert model(**inputs).logits.shape == (3, 2)
