"""Finished runs in tables: teacher, student with it, the same student without it; of adapters, what they hold too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import texts, transfer
from benchmarks.table import Row, Table, where_from
from pipelines.run_files import RunFiles
from pipelines.verdict import TITLES


@dataclass(frozen=True)
class Line(Row):
    """A run in the table."""

    metric: str
    rows: int
    seeds: int
    scores: dict[str, str]
    gain: str
    minutes: float
    held: int | None = None
    """Parameters that a student's adapter holds, its head among them; none without one."""
    megabytes: float | None = None
    """Of that adapter on disk."""

    def cells(self) -> list[str]:
        """Return the cells of a Markdown row."""
        scores = [self.scores.get(role, "–") for role in ("teacher", "student", "baseline")]
        return [
            self.run,
            f"{self.metric}, {self.rows:,} rows",
            *scores,
            self.gain,
            str(self.seeds),
            f"{self.minutes:.0f}",
            *([] if self.held is None else [f"{self.held:,}", f"{self.megabytes:.2f}"]),
        ]


HEAD = ("run", "scored by", "teacher", "student", "no teacher", "gain (seeds ahead)", "seeds", "minutes")
HELD = ("parameters held", "MB")


def line(folder: Path) -> Line:
    """Read one run; of a student in an adapter the name is that of the folder, as one recipe takes many adapters."""
    files = RunFiles(folder)
    results, record = files.evaluation, files.record
    spreads = {role: results["verdict"][role] for role in results["models"]}
    gain = results["verdict"].get("gain")
    student = results["models"]["student"]
    held = student.get("own")
    return Line(
        run=record["name"] if held is None else folder.name,
        metric=TITLES[results["metric"]],
        rows=results["rows"],
        seeds=len(student["seeds"]),
        scores={role: _spread(spread) for role, spread in spreads.items()},
        gain=f"{100 * gain['mean']:+.1f} ({gain['wins']} of {gain['seeds']})" if gain else "–",
        minutes=_minutes(files, set(student["seeds"])),
        **where_from(record),
        held=held,
        megabytes=None if held is None else student["megabytes"],
    )


def _minutes(files: RunFiles, seeds: set[str]) -> float:
    """Return the time of the stages the row tells of: those that all seeds share, and those of its seeds."""
    told = [trace for stage in files.stages for trace in stage.traces]
    seconds = (trace.record.get("seconds", 0.0) for trace in told if trace.seed is None or trace.seed in seeds)
    return float(sum(seconds)) / 60


def write(folders: list[Path], results: Path, console: Console) -> None:
    """Put runs into `tasks`, those of adapters into `adapters`, as Markdown and JSON beside each other; print them.

    What models wrote, each of a run, goes into `texts` as well; a task told in another language into `transfer` alone.
    """
    carried = [folder for folder in folders if transfer.is_told(RunFiles(folder))]
    transfer.write(carried, results, console)
    folders = [folder for folder in folders if folder not in carried]
    found = [line(folder) for folder in folders]
    adapters = [each for each in found if each.held is not None]
    whole = [each for each in found if each.held is None]
    said = "Scores in hundredths, mean ± sd over the seeds. Minutes: of the clock; many runs had other work beside."
    Table("Whole runs", HEAD, Line, said).write(whole, results / "tasks", console)
    title = "Students that are a frozen model in an adapter"
    Table(title, HEAD + HELD, Line, said).write(adapters, results / "adapters", console)
    texts.write(folders, results, console)


def _spread(spread: dict[str, Any]) -> str:
    mean = f"{100 * spread['mean']:.1f}"
    return mean if spread["sd"] is None else f"{mean} ± {100 * spread['sd']:.1f}"
