"""What a benchmark found: a table on the terminal, one JSON file with everything behind it."""

import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.goals import Result
from distill.files import write_json
from pipelines.machine import Device, facts
from pipelines.version import commit

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_COLOURS = {"stretch": "bold green", "passed": "green", "below": "bold red", "skipped": "yellow"}
BELOW = 1
UNMEASURED = 3


def write(path: Path, found: dict[str, Any], results: Sequence[Result], device: Device) -> None:
    """Write the file: where and how it was measured, what came out, every sample."""
    judged = [asdict(result) | {"status": result.status} for result in results]
    head = {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": commit() or "unknown",
        "day": datetime.now(UTC).date().isoformat(),
        "machine": facts(device) | {"system": platform.system(), "torch_build": torch.__version__},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, head | {"results": judged} | found)


def show(console: Console, title: str, results: Sequence[Result]) -> None:
    """Print the goals."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for column in ("", "measured", "must", "stretch", "at peak", ""):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for result in results:
        goal, colour = result.goal, _COLOURS[result.status]
        numbers = [_number(n) for n in (result.value, goal.must, goal.stretch, result.at_peak)]
        said = result.status + (f": {result.why}" if result.why else "")
        table.add_row(f"{goal.name}  {goal.what}", *numbers, f"[{colour}]{said}[/]")
    console.print(table)


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 where every goal was measured and reached, 1 below a goal, 3 where something was skipped."""
    found = {result.status for result in results}
    if "below" in found:
        return BELOW
    return UNMEASURED if "skipped" in found else 0


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
