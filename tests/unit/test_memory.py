"""What is in use of a process, and the most of it."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from distill import memory
from distill.memory import Highest, in_use
from pipelines import room
from pipelines.room import free_memory, kept_small

CPU = torch.device("cpu")
MB = 1_000_000


def used() -> int:
    found = in_use(CPU)
    assert found is not None
    return found


def test_a_tensor_is_in_use_for_as_long_as_it_is_held():
    before = used()
    held = torch.zeros(50 * MB // 4)
    assert used() - before == pytest.approx(50 * MB, rel=0.02)
    del held
    assert used() - before < MB


def test_small_tensors_count_as_large_ones_do():
    before = used()
    held = [torch.zeros(1000) for _ in range(10_000)]
    assert used() - before == pytest.approx(len(held) * 4000, rel=0.1)


def test_weights_in_a_map_of_their_file_are_in_use(tmp_path):
    save_file({"weight": torch.zeros(50 * MB // 4)}, tmp_path / "model.safetensors")
    before = used()
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        held = weights.get_tensor("weight")
        assert used() - before == pytest.approx(50 * MB, rel=0.02)
    assert held.sum() == 0


def test_the_highest_is_found_after_it_has_passed():
    began = time.perf_counter()
    before = used()
    pause = 0.1 + 3 * Highest.SHARE * (time.perf_counter() - began)  # it looks more rarely where to look takes long
    with Highest(CPU) as highest:
        passing = torch.ones(100 * MB // 4)
        time.sleep(pause)
        del passing
        time.sleep(0.1)
    assert highest.bytes is not None
    assert highest.bytes - before == pytest.approx(100 * MB, rel=0.02)


def test_holes_of_a_heap_are_not_in_use():
    blocks = [torch.ones(MB // 40) for _ in range(1000)]
    before = used()
    del blocks[::2]
    assert before - used() == pytest.approx(50 * MB, rel=0.1)


@pytest.mark.parametrize("filled", [False, True])
def test_holes_are_filled_once_they_take_half_as_much_again(monkeypatch, filled):
    monkeypatch.setattr(memory, "_SPARE", 0)
    monkeypatch.setattr(memory, "_REST", 1.0)
    with memory.few_holes() if filled else nullcontext():
        blocks = [torch.ones(MB // 40) for _ in range(2000)]
        time.sleep(2.5)  # 200 MB are seen to be in use
        held = memory._private()
        kept = blocks[::10]
        del blocks
        time.sleep(2.5)
        assert (held - memory._private() > 100 * MB) == filled
    assert len(kept) == 200


@pytest.mark.parametrize(("share", "way"), [(0.4, "few_holes"), (0.6, "given_back")])
def test_a_training_that_needs_half_of_the_memory_gives_back_all_it_frees(monkeypatch, share, way):
    used = []
    for name in ("few_holes", "given_back"):
        monkeypatch.setattr(room, name, lambda name=name: used.append(name))
    run = SimpleNamespace(device=SimpleNamespace(accelerator="cpu", devices=1))
    kept_small(run, int(share * free_memory(run)))
    assert used == [way]
