"""How long models take for a row, and for a batch of rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from pipelines.score import EncodedRows, Inputs, answer

Runner = Callable[[Inputs], object]
Name = TypeVar("Name", bound=str)

SAMPLE = 64
"""Batches drawn for each batch size."""
WARMUP = 3
FEWEST = 5
"""Rounds timed however slow the models are."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one batch: the median, and what 19 of 20 batches stay below."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Setting:
    """Under what the latencies were taken."""

    device: str
    threads: int
    rows: int
    """Rows the batches were drawn from."""
    mean_tokens: float
    """Mean length of those rows, in tokens."""


def measure(
    runners: Mapping[Name, Runner],
    rows: EncodedRows,
    *,
    sizes: Sequence[int] = (1, 32),
    seconds: float = 1.0,
    seed: int = 0,
) -> dict[Name, dict[str, dict[str, float]]]:
    """Time every runner on the same batches of real rows; {runner: {batch size: {p50_ms, p95_ms}}}.

    Runners take turns (A B A B), so that a busy spell of the machine hits all of them alike. Each batch size takes
    about `seconds` per runner.
    """
    found: dict[Name, dict[str, dict[str, float]]] = {name: {} for name in runners}
    for size in sizes:
        for name, times in _times(runners, _batches(rows, size, seed), seconds * len(runners)).items():
            found[name][str(size)] = asdict(summary(times))
    return found


def summary(times: Sequence[float]) -> Latency:
    """Return the percentiles of times in seconds."""
    p50, p95 = np.percentile(np.asarray(times) * 1000, (50, 95))
    return Latency(float(p50), float(p95))


def setting(rows: EncodedRows, device: str) -> dict[str, str | int | float]:
    """State device, threads and rows, for those who read the numbers."""
    return asdict(Setting(device, torch.get_num_threads(), len(rows), float(np.mean(rows.lengths))))


def runner(model: PreTrainedModel) -> Runner:
    """Return a function that runs the model on a batch, the copy to its device included, and waits for the result.

    The model is left in eval mode.
    """
    model.train(False)

    def run(batch: Inputs) -> object:
        with torch.inference_mode():
            return answer(model, batch).cpu()

    return run


def _batches(rows: EncodedRows, size: int, seed: int) -> list[Inputs]:
    """Draw batches of `size` from the rows, as they come: short ones beside long ones."""
    random = np.random.default_rng(seed)
    return [rows.collate(random.choice(len(rows), size, replace=size > len(rows))) for _ in range(SAMPLE)]


def _times(runners: Mapping[Name, Runner], batches: Sequence[Inputs], seconds: float) -> dict[Name, list[float]]:
    for batch in batches[:WARMUP]:
        for run in runners.values():
            run(batch)
    times: dict[Name, list[float]] = {name: [] for name in runners}
    turns = cycle(batches)
    end = perf_counter() + seconds
    while min(map(len, times.values())) < FEWEST or perf_counter() < end:
        batch = next(turns)
        for name, run in runners.items():
            start = perf_counter()
            run(batch)
            times[name].append(perf_counter() - start)
    return times
