"""What a checkpoint costs the training: written in its own time, and beside it."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks import report
from configs.training import Machine
from distill.callbacks.checkpoint_io import checkpoints
from distill.callbacks.checkpoints import Checkpoints
from pipelines.machine import prepare, quiet

WIDTH = 1024
LAYERS = 16
"""Layers of WIDTH² weights, each with two moments: 201 MB."""
ROWS = 64
WAYS = {"waits": False, "beside": True}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    threads: int = 2
    saves: int = 4
    every: int = 8
    """Steps between two checkpoints"""
    layers: int = LAYERS


class Model(pl.LightningModule):
    """Linear layers that learn to give nothing."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layers(batch).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


class Clock(pl.Callback):
    """Notes when each step, with all that is done after it, began."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.began.append(time.perf_counter())

    def on_train_end(self, *_: Any) -> None:
        self.began.append(time.perf_counter())


def run(options: Options, console: Console, path: Path) -> int:
    """Train both ways by turns, print what a step with a save takes, and write the JSON file."""
    quiet()
    device = prepare(Machine(accelerator="cpu", threads=options.threads, devices=1))
    found: dict[str, Any] = {"every": options.every, "saves": options.saves, "ways": {}}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(2):
        for name in WAYS:
            samples[name].append(_lap(options, background=WAYS[name]))
    for name, laps in samples.items():
        found["ways"][name] = {key: statistics.median(lap[key] for lap in laps) for key in laps[0]} | {"laps": laps}
    _table(console, found["ways"])
    report.write(path, found, [], device)
    return 0


def _lap(options: Options, *, background: bool) -> dict[str, float]:
    """Train, and return the seconds of steps with and without a save, of the whole, and the size of a checkpoint."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=report.ROOT) as scratch:
        folder, clock = Path(scratch), Clock()
        saver = Checkpoints(folder, options.every, background=background)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=options.every * (options.saves + 1) - 1,
            callbacks=[clock, saver],
            plugins=[saver.io],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
        )
        rows = DataLoader(torch.randn(ROWS, WIDTH), batch_size=None, batch_sampler=None, sampler=[range(ROWS)] * 10_000)
        trainer.fit(Model(options.layers), rows)
        times = [after - before for before, after in zip(clock.began, clock.began[1:], strict=False)]
        saving = times[options.every - 1 :: options.every]
        beside = [second for number, second in enumerate(times) if (number + 1) % options.every]
        return {
            "step_with_save": statistics.median(saving),
            "other_step": statistics.median(beside[1:]),
            "whole": sum(times),
            "megabytes": checkpoints(folder)[-1].stat().st_size / 1e6,
        }


def _table(console: Console, ways: dict[str, dict[str, float]]) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("", "step with a save, s", "other steps, s", "whole training, s", "MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, way in ways.items():
        numbers = (way[key] for key in ("step_with_save", "other_step", "whole", "megabytes"))
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    console.print(table)
