"""The TinyBERT step: ours through the whole path of a run, against TextBrewer, a bare loop and the hardware."""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import brewer, equality, memory, peak, report
from benchmarks.clock import Kind, Lap, Samples, Stopwatch
from benchmarks.goals import Result, goals
from benchmarks.ours import WARM, Bare, Trained
from benchmarks.workload import SMALL, Sizes, Workload, write
from configs.training import Machine
from distill.data.module import PlannedBatches
from distill.data.windows import Plan
from distill.types import Batch
from pipelines.machine import Device, prepare

LIMIT = {"fp32": 1e-5, "bf16": 2e-2}
"""Largest relative difference of a loss or of the gradient."""
STEPS = {"own": 10, "dynamic": 4, "fixed": 2}
"""Timed steps of a lap: one with fixed padding costs the same whichever rows it holds, so a few of them do."""
SAVE_EVERY = 500
"""Steps between two checkpoints of a run by default; a share of one is added to the trainer's overhead."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    peer: str = "textbrewer"
    """`none` leaves the comparison out."""
    threads: int = 2
    rounds: int = 5
    precisions: tuple[str, ...] = ("fp32", "bf16")
    memory: bool = True
    small: bool = False


def run(options: Options, console: Console, path: Path | None) -> int:
    """Measure, print, write the JSON file, and return the exit code."""
    device = prepare(Machine(accelerator="cpu", threads=options.threads, devices=1))
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        work = write(Path(folder) / "speed", SMALL if options.small else Sizes())
        found, results = _measure(work, options, device, console)
    report.show(console, f"TinyBERT step, {found['clock']} clock, {found['cores_used']:.2f} cores used", results)
    if path is not None:
        report.write(path, found, results, device)
    return report.exit_code(results)


def _measure(work: Workload, options: Options, device: Device, console: Console) -> tuple[dict[str, Any], list[Result]]:
    why = _absent(options.peer)
    if not why:
        verdicts = [equality.check(work, device, precision, LIMIT[precision]) for precision in options.precisions]
        for verdict in verdicts:
            console.print(_said(verdict), highlight=False)
        if not all(verdict.holds for verdict in verdicts):
            why = "the two sides do not compute the same"
    ...
