"""What a benchmark found: a table on the terminal, one JSON file with everything behind it."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.goals import Result
from distill.files import write_json
from pipelines.machine import Device, facts

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_COLOURS = {"stretch": "bold green", "passed": "green", "below": "bold red", "skipped": "yellow"}
BELOW = 1
UNMEASURED = 3


def write(path: Path, found: dict[str, Any], results: Sequence[Result], device: Device) -> None:
    """Write the file: where and how it was measured, what came out, every sample."""
    judged = [
        {"goal": r.goal.name, "value": r.value, "must": r.goal.must, "stretch": r.goal.stretch, "status": r.status}
        | ({"why": r.why} if r.why else {})
        for r in results
    ]
    head = {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": commit(),
        "day": datetime.now(UTC).date().isoformat(),
        "machine": facts(device) | {"system": platform.system(), "torch_build": torch.__version__},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, head | {"results": judged} | found)


def show(console: Console, title: str, results: Sequence[Result]) -> None:
    """Print the goals."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2))
    for column in ("", "measured", "must", "stretch", ""):
        table.add_column(column, justify="right" if column in ("measured", "must", "stretch") else "left")
    for result in results:
        goal, colour = result.goal, _COLOURS[result.status]
        value = "–" if result.value is None else f"{result.value:.2f}"
        said = result.status + (f": {result.why}" if result.why else "")
        table.add_row(f"{goal.name}  {goal.what}", value, f"{goal.must:g}", f"{goal.stretch:g}", f"[{colour}]{said}[/]")
    console.print(table)


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 where every goal was measured and reached, 1 below a goal, 3 where something was skipped."""
    found = {result.status for result in results}
    if "below" in found:
        return BELOW
    return UNMEASURED if "skipped" in found else 0


def commit() -> str:
    """Return the commit of the code that ran, with a mark where files differ from it."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def load(path: Path) -> dict[str, Any]:
    """Read a file that `write` wrote."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
