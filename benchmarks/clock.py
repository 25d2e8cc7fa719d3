"""Laps, and how variants take turns."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

Kind = str
"""`wall` or `cpu`: which clock a ratio is taken on."""
STEADY = 0.9
"""Below this part of the threads in use, something else held the cores."""


@dataclass(frozen=True)
class Lap:
    """Some steps of a variant, timed together."""

    wall: float
    """Seconds on the wall."""
    cpu: float
    """Seconds of processor time, over all threads."""
    work: float
    """What was done: tokens that are no padding; of matrix products, operations."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Rows and padded positions of the batches."""

    def per_second(self, kind: Kind) -> float:
        """Return work per second of a clock."""
        return self.work / (self.wall if kind == "wall" else self.cpu)


class Stopwatch:
    """Both clocks at once."""

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def lap(self, batches: Sequence[Mapping[str, Any]]) -> Lap:
        """Return the time since the start, spent on these batches."""
        wall, cpu = self.seconds()
        masks = [batch["attention_mask"] for batch in batches]
        notes = {"rows": sum(len(mask) for mask in masks), "padded": sum(mask.numel() for mask in masks)}
        return Lap(wall, cpu, float(sum(int(mask.sum()) for mask in masks)), notes)

    def seconds(self) -> tuple[float, float]:
        """Return the time since the start on both clocks, wall first."""
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


@dataclass
class Samples:
    """The laps of all variants, a list each, round by round."""

    laps: dict[str, list[Lap]]
    threads: int

    @classmethod
    def gather(cls, variants: Mapping[str, Callable[[int], Lap]], rounds: int, threads: int) -> Self:
        """Let the variants take turns, every other round in reverse; each is called with the number of the round."""
        laps: dict[str, list[Lap]] = {name: [] for name in variants}
        for number in range(rounds):
            order = list(variants)
            for name in order if number % 2 == 0 else reversed(order):
                laps[name].append(variants[name](number))
        return cls(laps, threads)

    @property
    def cores(self) -> float:
        """Cores in use: processor time over time on the wall, the median over all laps."""
        return statistics.median(lap.cpu / lap.wall for laps in self.laps.values() for lap in laps)

    @property
    def contended(self) -> bool:
        """Whether other work held the cores, so that the wall clock says nothing."""
        return self.cores < STEADY * self.threads

    @property
    def clock(self) -> Kind:
        """The clock that goals are held against."""
        return "cpu" if self.contended else "wall"

    def speed(self, name: str, kind: Kind) -> float:
        """Return the median of a variant's work per second."""
        return statistics.median(lap.per_second(kind) for lap in self.laps[name])

    def ratio(self, name: str, other: str, kind: Kind) -> float:
        """Return how many times as fast a variant is as another: the median over rounds, each with the other's lap."""
        pairs = zip(self.laps[name], self.laps[other], strict=True)
        return statistics.median(own.per_second(kind) / its.per_second(kind) for own, its in pairs)

    def raw(self) -> dict[str, list[dict[str, Any]]]:
        """Return all laps as JSON can hold them."""
        return {name: [asdict(lap) for lap in laps] for name, laps in self.laps.items()}
