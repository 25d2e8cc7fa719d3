"""Checkpoints written beside a training: as they were at the step, one at a time, and no error is lost."""

import threading
from pathlib import Path

import pytest
import torch

from distill.callbacks import checkpoint_io
from distill.callbacks.checkpoint_io import AtomicIO, checkpoints, newest, on_host
from distill.errors import DiskError, ResumeError


@pytest.fixture
def slow(monkeypatch):
    """Hold every write until it is let go; count those at work."""
    write, gate, busy, most = checkpoint_io._write, threading.Semaphore(0), [], []

    def held(checkpoint, path):
        busy.append(path)
        most.append(len(busy))
        assert gate.acquire(timeout=30)
        write(checkpoint, path)
        busy.remove(path)

    monkeypatch.setattr(checkpoint_io, "_write", held)
    return gate, most


def _state(step: int, weight: torch.Tensor) -> dict[str, object]:
    return {"global_step": step, "state_dict": {"weight": weight}, "groups": [{"lr": 0.1}]}


def _read(path: Path) -> dict[str, object]:
    return torch.load(path, weights_only=True)


def test_what_is_written_is_what_was_at_the_step(tmp_path, slow):
    gate, _ = slow
    io, weight, state = AtomicIO(background=True), torch.zeros(3), {}
    state = _state(1, weight)
    io.save_checkpoint(state, tmp_path / "step-1.ckpt")
    assert not checkpoints(tmp_path)  # the step is over, and the file is not there yet
    weight += 1
    state["groups"][0]["lr"] = 0.2
    gate.release()
    io.wait()
    found = _read(tmp_path / "step-1.ckpt")
    assert found["state_dict"]["weight"].tolist() == [0, 0, 0] and found["groups"] == [{"lr": 0.1}]


def test_two_are_never_written_at_once_and_the_newest_two_stay(tmp_path, slow):
    gate, most = slow
    io = AtomicIO(background=True)
    for step in range(1, 6):
        gate.release()
        io.save_checkpoint(_state(step, torch.ones(2)), tmp_path / f"step-{step}.ckpt")
    io.wait()
    assert most == [1] * 5
    assert [path.name for path in checkpoints(tmp_path)] == ["step-4.ckpt", "step-5.ckpt"]


@pytest.mark.parametrize("heard", ["look", "wait", "teardown", "save"])
def test_an_error_comes_out_once_and_leaves_the_last_good_one(tmp_path, monkeypatch, heard):
    io = AtomicIO(background=True)
    io.save_checkpoint(_state(1, torch.ones(2)), tmp_path / "step-1.ckpt")
    io.wait()

    def full(checkpoint, partial):
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(checkpoint_io.torch, "save", full)
        io.save_checkpoint(_state(2, torch.ones(2)), tmp_path / "step-2.ckpt")
        while not io._writing.done():
            pass
    with pytest.raises(DiskError, match=r"step-2.ckpt: No space left on device; what was saved before is whole"):
        if heard == "save":
            io.save_checkpoint(_state(3, torch.ones(2)), tmp_path / "step-3.ckpt")
        getattr(io, "look" if heard == "save" else heard)()
    io.wait()  # it was told
    assert [path.name for path in checkpoints(tmp_path)] == ["step-1.ckpt"]
    assert not [*tmp_path.glob(".*.partial")]  # a full disk is no fuller
    assert _read(tmp_path / "step-1.ckpt")["global_step"] == 1


def test_a_look_waits_for_nothing(tmp_path, slow):
    gate, _ = slow
    io = AtomicIO(background=True)
    io.save_checkpoint(_state(1, torch.ones(2)), tmp_path / "step-1.ckpt")
    io.look()
    gate.release()
    io.wait()


def test_tied_weights_are_copied_once(tmp_path):
    tied = torch.randn(1000, 100)
    state = {"a": tied, "b": tied, "part": tied[:10], "none": torch.empty(0), "other": torch.ones(2)}
    copied = on_host(state)
    assert copied["a"] is copied["b"] and copied["a"].data_ptr() != tied.data_ptr()
    assert torch.equal(copied["part"], tied[:10]) and copied["part"].shape == (10, 100)
    for background in (False, True):
        io = AtomicIO(background=background)
        io.save_checkpoint({"a": tied, "b": tied}, tmp_path / str(background) / "step-1.ckpt")
        io.wait()
    sizes = [(tmp_path / str(background) / "step-1.ckpt").stat().st_size for background in (False, True)]
    assert sizes[0] == sizes[1]


def _spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "one bit":
        content[content.index(torch.full((4096,), 3.0).numpy().tobytes()) + 5000] ^= 1
    path.write_bytes(content[: len(content) // 2] if how == "half" else b"" if how == "all" else content)


@pytest.mark.parametrize("how", ["one bit", "half", "all"])
def test_a_damaged_checkpoint_is_left_for_the_one_before(tmp_path, how):
    io, told = AtomicIO(), list[str]()
    assert newest(tmp_path, told.append) is None
    for step in (1, 2):
        io.save_checkpoint(_state(step, torch.full((4096,), 3.0)), tmp_path / f"step-{step}.ckpt")
    assert newest(tmp_path, told.append) == tmp_path / "step-2.ckpt" and told == []
    _spoil(tmp_path / "step-2.ckpt", how)
    assert newest(tmp_path, told.append) == tmp_path / "step-1.ckpt"
    assert told == [f"{tmp_path / 'step-2.ckpt'}: damaged since it was written; the training goes on from step-1.ckpt"]
    _spoil(tmp_path / "step-1.ckpt", how)
    with pytest.raises(ResumeError, match=r"damaged since written: step-1\.ckpt and step-2\.ckpt, and there is no"):
        newest(tmp_path, told.append)
