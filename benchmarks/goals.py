"""What the numbers have to reach."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FILE = Path(__file__).with_name("goals.toml")


@dataclass(frozen=True)
class Goal:
    """A goal of `goals.toml`."""

    name: str
    what: str
    better: Literal["higher", "lower"]
    must: float
    stretch: float

    def reached(self, value: float, limit: float) -> bool:
        """Whether a value is on the right side of a limit."""
        return value >= limit if self.better == "higher" else value <= limit


@dataclass(frozen=True)
class Result:
    """A measured number beside its goal."""

    goal: Goal
    value: float | None
    """None: not measured."""
    why: str = ""
    """Why it was not measured."""
    at_peak: float | None = None
    """For ratios to a peer: what a step would reach that ran at the peak of the processor's products."""

    @property
    def status(self) -> Literal["stretch", "passed", "below", "skipped"]:
        """What became of it; a number that was not measured is skipped, never passed."""
        if self.value is None:
            return "skipped"
        if self.goal.reached(self.value, self.goal.stretch):
            return "stretch"
        return "passed" if self.goal.reached(self.value, self.goal.must) else "below"


def goals() -> Mapping[str, Goal]:
    """Return all goals by name."""
    return {name: Goal(name, **entry) for name, entry in tomllib.loads(FILE.read_text(encoding="utf-8")).items()}
