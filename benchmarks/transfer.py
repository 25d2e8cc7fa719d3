"""Tasks told in another language than they were learnt in, in a table: over which adapter of a language, what score."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.table import Row, Table, where_from
from pipelines.run_files import RunFiles
from pipelines.verdict import TITLES, over_seeds

HEAD = ("run", "evaluation", "on", "scored by", "student")
SAID = """\
Scores in hundredths. `english` is the language the task was learnt in, over its adapter; the others are the language
that no tagged sentence was seen of: over the adapter of English, over none, and over its own (`zero-shot`)."""


@dataclass(frozen=True, kw_only=True)
class Told(Row):
    """One evaluation of a run."""

    stage: str
    data: str
    metric: str
    rows: int
    score: str

    def cells(self) -> list[str]:
        """Return the cells of a Markdown row."""
        return [self.run, self.stage, self.data, f"{self.metric}, {self.rows:,} rows", self.score]


def is_told(files: RunFiles) -> bool:
    """Whether a run swaps the adapter under that of a task."""
    return any(stage.get("below") for stage in files.config["stages"].values())


def write(folders: list[Path], results: Path, console: Console) -> None:
    """Put the evaluations of those runs that swap adapters into `transfer`."""
    found = [row for folder in folders for row in _of(RunFiles(folder))]
    Table("Tasks carried to another language", HEAD, Told, SAID).write(found, results / "transfer", console)


def _of(files: RunFiles) -> list[Told]:
    return [
        Told(
            run=files.record["name"],
            stage=stage,
            data=found["data"],
            metric=TITLES[found["metric"]],
            rows=found["rows"],
            score=over_seeds(found["models"]["student"], found["metric"]),
            **where_from(files.record),
        )
        for stage, found in files.evaluations
    ]
