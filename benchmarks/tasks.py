"""Finished runs in one table: teacher, student with it, the same student without it."""

import json
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
    code: str

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
        minutes=_minutes(files, set(results["models"]["student"]["seeds"])),
        command=record["command"],
        machine=f"{record['processor']}; {record['machine']}",
        code=record["code"],
    )


def _minutes(files: RunFiles, seeds: set[str]) -> float:
    """Return the time of the stages the row tells of: those that all seeds share, and those of its seeds."""
    told = [trace for stage in files.stages for trace in stage.traces]
    seconds = (trace.record.get("seconds", 0.0) for trace in told if trace.seed is None or trace.seed in seeds)
    return float(sum(seconds)) / 60


def write(folders: list[Path], target: Path, console: Console) -> None:
    """Put runs into the table, as Markdown and JSON beside each other, and print it.

    A run takes the place of an older one of its name; the others stay: each takes hours, and has its own code and
    machine written beside it.
    """
    kept = {found.run: found for found in _read(target.with_suffix(".json"))}
    lines = list((kept | {found.run: found for found in map(line, folders)}).values())
    head = ["run", "scored by", "teacher", "student", "no teacher", "gain (seeds ahead)", "seeds", "minutes"]
    cells = [head, ["---"] * len(head), *(found.cells() for found in lines)]
    rows = ["| " + " | ".join(row) + " |" for row in cells]
    commands = [f"- `{found.command}`: version {found.code}; {found.machine}" for found in lines]
    parts = ["# Whole runs", "", *rows, "", "Scores in hundredths, mean ± sd over the seeds.", "", *commands, ""]
    write_text(target.with_suffix(".md"), "\n".join(parts))
    write_json(target.with_suffix(".json"), [vars(found) for found in lines])
    console.print(Markdown("\n".join(parts)))


def _read(path: Path) -> list[Line]:
    return [Line(**found) for found in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def _spread(spread: dict[str, Any]) -> str:
    mean = f"{100 * spread['mean']:.1f}"
    return mean if spread["sd"] is None else f"{mean} ± {100 * spread['sd']:.1f}"
