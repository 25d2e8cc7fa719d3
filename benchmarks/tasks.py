"""Gather finished runs into one table: teacher, student with it, the same student without it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from distill.files import write_json, write_text
from pipelines.run_files import RunFiles
from pipelines.verdict import TITLES


@dataclass(frozen=True)
class Line:
    """A run in the table."""

    run: str
    metric: str
    rows: int
    seeds: int
    scores: dict[str, str]
    gain: str
    minutes: float
    command: str
    machine: str

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
        ]


def line(folder: Path) -> Line:
    """Read one run."""
    files = RunFiles(folder)
    results, record = files.evaluation, files.record
    spreads = {role: results["verdict"][role] for role in results["models"]}
    gain = results["verdict"].get("gain")
    return Line(
        run=record["name"],
        metric=TITLES[results["metric"]],
        rows=results["rows"],
        seeds=len(results["models"]["student"]["seeds"]),
        scores={role: _spread(spread) for role, spread in spreads.items()},
        gain=f"{100 * gain['mean']:+.1f} ({gain['wins']} of {gain['seeds']})" if gain else "–",
        minutes=sum(stage.seconds for stage in files.stages) / 60,
        command=record["command"],
        machine=f"{record['processor']}; {record['machine']}",
    )


def write(folders: list[Path], target: Path, commit: str, console: Console) -> None:
    """Write the table as Markdown and JSON beside each other, and print it."""
    lines = [line(folder) for folder in folders]
    head = ["run", "scored by", "teacher", "student", "no teacher", "gain (seeds ahead)", "seeds", "minutes"]
    cells = [head, ["---"] * len(head), *(found.cells() for found in lines)]
    rows = ["| " + " | ".join(row) + " |" for row in cells]
    commands = "\n".join(f"    {found.command}" for found in lines)
    about = f"Commit {commit}. {'; '.join(sorted({found.machine for found in lines}))}.\n\n{commands}"
    text = "\n".join(["# Whole runs on public data", "", *rows, "", "Scores in hundredths, mean ± sd.", "", about, ""])
    write_text(target.with_suffix(".md"), text)
    write_json(target.with_suffix(".json"), {"commit": commit, "runs": [vars(found) for found in lines]})
    console.print(Markdown(text))


def _spread(spread: dict[str, Any]) -> str:
    mean = f"{100 * spread['mean']:.1f}"
    return mean if spread["sd"] is None else f"{mean} ± {100 * spread['sd']:.1f}"
