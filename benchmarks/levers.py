"""What each lever brings: the step of a run as it is, against the same step without the lever."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.clock import Lap, Samples
from benchmarks.equality import NO_DROPOUT
from benchmarks.ours import Trained
from benchmarks.peak import stock_products
from benchmarks.workload import TERMS, Workload
from distill import attention_routes, few_shapes
from pipelines.machine import Device
from teachers import packed

STEPS = 5
BASE = "as it is"
Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Lever:
    """A run without something."""

    without: str
    changes: dict[str, Any] = field(default_factory=dict)
    """To the section of the stage, and to the student."""
    during: Context = nullcontext
    """In force while it trains."""


LEVERS = (
    Lever("sorting rows by length", {"training": {"bucket_window": 1}}),
    Lever("dynamic padding", {"training": {"padding": "fixed"}}),
    Lever("oneDNN for fp32 products", during=stock_products),
    Lever("packed weights of the teacher", during=partial(patch.object, packed, "_packs", lambda dtype: False)),
    Lever("few shapes of products in bf16", during=partial(patch.object, few_shapes, "rounded", lambda rows: rows)),
    Lever("plain products in short attention", during=partial(patch.object, attention_routes, "SHORT", 0)),
    Lever("dropout in the student (a cost)", {"options": NO_DROPOUT}),
    Lever("hidden and attention terms (a cost)", {"objective": TERMS[2:]}),
)


def measure(work: Workload, device: Device, rounds: int, precisions: tuple[str, ...]) -> Samples:
    """Let the step take turns with itself without each lever."""
    turns: dict[str, Callable[[int], Lap]] = {}
    for precision in precisions:
        for number, lever in enumerate((Lever(BASE), *LEVERS)):
            training = lever.changes.get("training", {}) | {"precision": precision}
            stage = work.stage(device, f"lever-{precision}-{number}", **lever.changes | {"training": training})
            trained = Trained(stage, work.folder / "levers")
            turns[f"{precision}: {lever.without}"] = partial(_lap, trained, lever.during)
    return Samples.gather(turns, rounds, device.threads)


def show(console: Console, samples: Samples, precisions: tuple[str, ...]) -> None:
    """Print how many times as fast the step is with each lever as without it."""
    table = Table(title="What each lever brings: times as fast as without it", title_justify="left", box=None)
    table.add_column("")
    for precision in precisions:
        table.add_column(precision, justify="right")
    for lever in LEVERS:
        ratios = [samples.ratio(f"{p}: {BASE}", f"{p}: {lever.without}", samples.clock) for p in precisions]
        table.add_row(lever.without, *(f"{ratio:.2f}" for ratio in ratios))
    console.print(table)


def _lap(trained: Trained, during: Context, number: int) -> Lap:
    with during():
        return trained.lap(number * STEPS, STEPS)
