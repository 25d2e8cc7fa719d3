"""Ten adapters of ten tasks beside one model in memory: switching reads nothing and copies nothing."""

import builtins
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from configs.adapters import AnyAdapter, Bottleneck, Lora
from distill import adapted_model, adapters
from distill.adapter_folder import WEIGHTS
from students.adapters.build import build
from tests.helpers.families import batch, loaded, task_of

TASKS = 10
KINDS: dict[str, AnyAdapter] = {
    "lora": Lora(kind="lora", rank=2),
    "houlsby": Bottleneck(kind="bottleneck", size=4),
    "pfeiffer": Bottleneck(kind="bottleneck", place="pfeiffer", size=4),
}


def saved(folder: Path, section: AnyAdapter, seed: int) -> Path:
    torch.manual_seed(seed)
    model = build(section, loaded("bert"), task_of("bert"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    adapters.save(model, folder)
    return folder


def logits(model: Any) -> Tensor:
    inputs = {name: tensor for name, tensor in batch("bert").items() if name != "labels"}
    with torch.no_grad():
        found: Tensor = model.eval()(**inputs).logits
    return found


def bytes_of(model: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_ten_adapters_share_one_model_and_switching_costs_no_reload(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {f"task{seed}": saved(tmp_path / str(seed), KINDS[kind], seed) for seed in range(TASKS)}
    alone = {name: logits(adapters.attach(loaded("bert").model, folder, name)) for name, folder in folders.items()}
    base = loaded("bert").model
    held, size = {id(parameter): name for name, parameter in base.named_parameters()}, bytes_of(base)
    model: Any = base
    grown = [size]
    for name, folder in folders.items():
        model = adapters.add(model, folder, name, "a test")
        grown.append(bytes_of(model))
    assert isinstance(model, PeftModel)
    steps = {after - before for before, after in pairwise(grown)}
    file = (tmp_path / "0" / WEIGHTS).stat().st_size
    assert len(steps) == 1 and 0 < steps.pop() <= file < size
    assert set(held) <= {id(parameter) for parameter in model.parameters()}

    before = {id(parameter): parameter.data_ptr() for parameter in model.parameters()}
    refuse(monkeypatch)
    for name in [*folders, *reversed(folders)]:
        model.set_adapter(name, inference_mode=True)
        assert torch.equal(logits(model), alone[name])
    assert {id(parameter): parameter.data_ptr() for parameter in model.parameters()} == before


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file be opened from here on."""

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("switching opened a file")

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr("safetensors.torch.load_file", opened)
    monkeypatch.setattr("peft.utils.save_and_load.safe_load_file", opened)


@pytest.mark.parametrize("place", ["houlsby", "parallel"])
def test_a_deleted_adapter_leaves_nothing_of_itself_and_the_others_as_they_were(tmp_path: Path, place: str) -> None:
    kind = Bottleneck.model_validate({"kind": "bottleneck", "place": place, "size": 8, "kronecker": 2})
    first, second = (saved(tmp_path / name, kind, seed) for seed, name in enumerate(("first", "second")))
    alone = logits(adapters.attach(loaded("bert").model, first, "a test"))
    model: Any = adapters.add(loaded("bert").model, first, "first", "a test")
    model = adapters.add(model, second, "second", "a test")
    model.set_adapter("first")
    model.delete_adapter("second")
    assert torch.equal(logits(model), alone)
    assert not any(".second" in name for name in model.state_dict())


@pytest.mark.parametrize("place", ["houlsby", "pfeiffer", "parallel"])
def test_layers_dropped_for_good_are_those_dropped_in_a_training_pass(tmp_path: Path, place: str) -> None:
    kind = Bottleneck.model_validate({"kind": "bottleneck", "place": place, "size": 4, "invertible": 2})
    model: Any = adapters.attach(loaded("bert").model, saved(tmp_path / "whole", kind, 0), "a test")
    whole = logits(model)
    model.train()
    model.base_model.drop.leave_out(1, [adapted_model.ACTIVE])
    inputs = {name: tensor for name, tensor in batch("bert").items() if name != "labels"}
    dropped = model(**inputs).logits
    model.base_model.drop.leave_out(0, [])
    model.base_model.drop_lowest(adapted_model.ACTIVE, 1)
    assert torch.equal(logits(model), dropped) and not torch.equal(dropped, whole)
    adapters.save(model, tmp_path / "dropped")
    assert torch.equal(logits(adapters.attach(loaded("bert").model, tmp_path / "dropped", "a test")), dropped)
    with pytest.raises(ValueError, match="no part of the adapter is left"):
        model.base_model.drop_lowest(adapted_model.ACTIVE, 2)
