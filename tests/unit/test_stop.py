"""How a stop is asked for and heeded, in one process and among several."""

import os
import signal
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist

from distill.callbacks import stop as module
from distill.callbacks.stop import Stop, interval
from distill.errors import Stopped
from distill.signals import SIGNALS, stoppable


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_is_no_error_that_a_library_may_swallow(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, stoppable():
        try:
            os.kill(os.getpid(), number)
        except Exception:
            pytest.fail("it was taken for an error of somebody's own")
    assert stopped.value.signal == number and signal.getsignal(number) == before


def test_a_second_interrupt_stops_at_once():
    stop = Stop(cast(Any, None))
    trainer = SimpleNamespace(global_step=0)
    stop.on_train_start(cast(pl.Trainer, trainer), cast(pl.LightningModule, None))
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        stop.teardown(cast(pl.Trainer, trainer), cast(pl.LightningModule, None), "fit")


@pytest.mark.parametrize(
    ("seconds", "steps"), [(0.0, 10), (0.5, 10), (0.6, 5), (1.0, 5), (1.1, 2), (2.5, 2), (2.6, 1), (60.0, 1)]
)
def test_slow_steps_are_looked_at_more_often(seconds, steps):
    assert interval(seconds) == steps


@pytest.mark.parametrize(
    ("own", "slowest", "validated", "looks"),
    [
        (0.1, 0.1, 100, [1, 10, 20, 30, 40]),
        (6.0, 6.0, 100, list(range(1, 41))),
        (0.1, 1.0, 100, [1, 5, 10, 15, 20, 25, 30, 35, 40]),  # another rank measured more: its time counts here too
        (0.1, 0.1, 15, [1, 10, 15, 20, 30, 40]),  # once for a step, and after its validation
    ],
)
def test_ranks_look_in_time_at_steps_they_agree_on(monkeypatch, own, slowest, validated, looks):
    clock, seen = [0.0], []
    trainer = SimpleNamespace(
        global_step=0,
        max_steps=100,
        world_size=2,
        accumulate_grad_batches=1,
        val_dataloaders=[None],
        val_check_interval=validated,
        strategy=SimpleNamespace(root_device="cpu"),
    )

    def all_reduce(mine: torch.Tensor, op: object) -> None:
        assert op == dist.ReduceOp.MAX
        seen.append(trainer.global_step)
        mine.copy_(torch.maximum(mine, torch.tensor([0.0, slowest])))

    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.dist, "all_reduce", all_reduce)
    stop = Stop(cast(Any, None))
    given = cast(pl.Trainer, trainer), cast(pl.LightningModule, None)
    stop.on_train_start(*given)
    try:
        for index in range(40):
            clock[0] += own
            trainer.global_step += 1
            stop.on_train_batch_end(*given, None, None, index)
            if trainer.global_step % validated == 0:
                stop.on_validation_end(*given)
    finally:
        stop.teardown(*given, "fit")
    assert seen == looks


@pytest.mark.parametrize("last", [False, True])
def test_the_signal_of_any_rank_stops_all_with_a_checkpoint(monkeypatch, last):
    saved: list[object] = []
    trainer = SimpleNamespace(
        global_step=10,
        max_steps=10 if last else 20,
        world_size=2,
        accumulate_grad_batches=1,
        val_dataloaders=[None],
        val_check_interval=4,
        strategy=SimpleNamespace(root_device="cpu"),
    )
    monkeypatch.setattr(module.dist, "all_reduce", lambda mine, op: mine.copy_(torch.tensor([15.0, 0.1])))
    stop = Stop(cast(Any, SimpleNamespace(save=saved.append, io=SimpleNamespace(wait=lambda: None))))
    given = cast(pl.Trainer, trainer), cast(pl.LightningModule, None)
    if last:
        stop.on_train_batch_end(*given, None, None, 0)
        assert not saved  # its validation is still to come
    with pytest.raises(Stopped, match="stopped after step 10") as stopped:
        stop.on_train_end(*given) if last else stop.on_train_batch_end(*given, None, None, 0)
    assert stopped.value.signal == signal.SIGTERM and saved == [trainer]
