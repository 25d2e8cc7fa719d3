"""A teacher on the devices that train against one on devices of its own: whole trainings of two processes, in turns."""

import csv
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.equality import NO_DROPOUT
from benchmarks.workload import BATCH, Sizes, Workload, write
from configs.training import Machine
from pipelines.machine import prepare

SIZES = Sizes(
    teacher={"layers": 4, "hidden_size": 384, "intermediate_size": 1536, "vocabulary": 4096},
    student={"layers": 4, "hidden_size": 192, "intermediate_size": 768, "heads": 12},
    length=32,
)
"""Layers of four times the student's weights: a pass of the teacher is 4/3 of the student's two."""
OBJECTIVE = [{"kind": "logits", "temperature": 2}, {"kind": "hidden", "layers": "last"}]
TWO = ("machine.devices=2", "machine.threads=1")
PLACES = {"same": TWO, "apart": (*TWO, "machine.teachers=1")}
EVERY, STEPS = 5, 30
"""Steps of a lap, and of a training; the first lap warms up."""
LIMIT = 1e-4


@dataclass(frozen=True)
class Turn:
    """One training."""

    rows_per_second: list[float]
    """Of each lap."""
    losses: list[float]
    """All that were logged, one after the other."""

    @property
    def median(self) -> float:
        """Rows per second of the lap in the middle."""
        return statistics.median(self.rows_per_second)


def run(rounds: int, console: Console, path: Path) -> int:
    """Measure, print, write the JSON file, and return the exit code: 1 where losses differ."""
    turns: dict[str, list[Turn]] = {place: [] for place in PLACES}
    with TemporaryDirectory() as folder:
        work = write(Path(folder), SIZES)
        file = _run_file(work)
        for number in range(rounds):
            for place in list(PLACES) if number % 2 == 0 else reversed(PLACES):
                turns[place].append(_turn(file, work.folder / f"{place}-{number}", PLACES[place]))
    gap = _gap(turns)
    ratio = statistics.median(apart.median / same.median for apart, same in zip(*_both(turns), strict=True))
    samples = {place: [turn.rows_per_second for turn in one] for place, one in turns.items()}
    found = {"largest_difference_of_a_loss": gap, "apart_to_same": ratio, "rows_per_second": samples}
    report.write(path, found, [], prepare(Machine(devices=1)))
    _show(console, turns, ratio, gap)
    return int(gap > LIMIT)


def _run_file(work: Workload) -> Path:
    training = {"max_steps": STEPS, "log_every": EVERY, "watch": "off"}
    file = work._run_file("apart", {"objective": OBJECTIVE, "training": training, "options": NO_DROPOUT})
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "machine": {"loggers": ["csv"]}}), encoding="utf-8")
    return file


def _turn(file: Path, output: Path, overrides: tuple[str, ...]) -> Turn:
    script = str(Path(sys.executable).with_name("distill"))
    subprocess.run([script, "run", str(file), f"output={output}", *overrides], check=True, capture_output=True)
    with next(output.rglob("metrics.csv")).open(encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["loss"]]
    losses = [float(value) for row in rows for name, value in row.items() if name.startswith("loss")]
    return Turn([float(row["examples_per_second"]) for row in rows[1:]], losses)


def _both(turns: dict[str, list[Turn]]) -> tuple[list[Turn], list[Turn]]:
    return turns["apart"], turns["same"]


def _gap(turns: dict[str, list[Turn]]) -> float:
    """Return the largest relative difference between losses of the two places."""
    pairs = zip(*_both(turns), strict=True)
    every = (pair for apart, same in pairs for pair in zip(apart.losses, same.losses, strict=True))
    return max(abs(own - other) / abs(other) for own, other in every)


def _show(console: Console, turns: dict[str, list[Turn]], ratio: float, gap: float) -> None:
    table = Table(title=f"Rows per second, windows of {BATCH} rows of 32 tokens", title_justify="left", box=None)
    for column in (*PLACES, "apart / same"):
        table.add_column(column, justify="right")
    medians = [statistics.median(turn.median for turn in one) for one in turns.values()]
    table.add_row(*(f"{value:.1f}" for value in medians), f"{ratio:.2f}")
    console.print(table)
    console.print(f"largest difference of a logged loss: {gap:.1e}")
