"""What the models of finished runs wrote, in a table: by beam search and greedily, each model a line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.table import Row, Table, where_from
from pipelines.run_files import RunFiles
from pipelines.verdict import GREEDY, TITLES, over_seeds

HEAD = (
    "run",
    "trained by",
    "parameters",
    "scored by",
    "beam",
    "its rank",
    "greedy",
    "chrF",
    "agrees",
    "length",
    "seeds",
    "minutes",
)
SAID = """\
Scores in hundredths, mean ± sd over the seeds. Its rank: what the beam's hypotheses are ranked by. Agrees: BLEU of what
it wrote by beam search against what the teacher wrote. Length: words for one of the references. Minutes: of the
training, the mean of its seeds."""


_USUAL = "Σ log p / length"


@dataclass(frozen=True, kw_only=True)
class Written(Row):
    """A model of a run."""

    stage: str
    """What trained it; `teacher` for one that came trained."""
    parameters: int
    metric: str
    rows: int
    beam: str
    greedy: str
    chrf: str
    agreement: str
    length: str
    seeds: int
    minutes: float | None
    rank: str = _USUAL

    def cells(self) -> list[str]:
        """Return the cells of a Markdown row."""
        size = f"{self.parameters / 1e6:.2f} M"
        scores = [self.beam, self.rank, self.greedy, self.chrf, self.agreement, self.length]
        minutes = "–" if self.minutes is None else f"{self.minutes:.0f}"
        return [self.run, self.stage, size, f"{self.metric}, {self.rows:,} rows", *scores, str(self.seeds), minutes]


def write(folders: list[Path], results: Path, console: Console) -> None:
    """Put the models of those runs that write into `texts`."""
    found = [row for folder in folders for row in _of(RunFiles(folder))]
    Table("Models that write", HEAD, Written, SAID).write(found, results / "texts", console)


def _of(files: RunFiles) -> list[Written]:
    stages: dict[str, dict[str, Any]] = files.config["stages"]
    return [row for name, results in files.evaluations for row in _compared(files, stages[name], results)]


def _compared(files: RunFiles, asked: dict[str, Any], results: dict[str, Any]) -> list[Written]:
    """Return the models of one evaluate stage; none where they do not write."""
    metric = results["metric"]
    if not any(
        f"{metric}{GREEDY}" in scores for model in results["models"].values() for scores in model["seeds"].values()
    ):
        return []
    trained = {role: asked.get(role) or role for role in results["models"]}
    return [
        Written(
            run=files.record["name"],
            stage=trained[role],
            parameters=model["parameters"],
            metric=TITLES[metric],
            rows=results["rows"],
            beam=over_seeds(model, metric),
            rank=_rank((asked.get("decoding") or {}).get("length_penalty")),
            greedy=over_seeds(model, f"{metric}{GREEDY}"),
            chrf=over_seeds(model, "chrf"),
            agreement=over_seeds(model, "agreement"),
            length=over_seeds(model, "length_ratio"),
            seeds=len(model["seeds"]),
            minutes=_minutes(files, trained[role]),
            **where_from(files.record),
        )
        for role, model in results["models"].items()
    ]


def _rank(penalty: float | None) -> str:
    """Say what a beam goes by; without a penalty of the stage's by the model's own, 1 unless it says otherwise."""
    if penalty is None or penalty == 1.0:
        return _USUAL
    return f"Σ log p / length^{penalty:g}" if penalty else "Σ log p"


def _minutes(files: RunFiles, name: str) -> float | None:
    """Return the mean time of a stage's passes; none where there was no such stage."""
    found = [stage for stage in files.stages if stage.name == name]
    seconds: list[Any] = [trace.record.get("seconds", 0.0) for stage in found for trace in stage.traces]
    return sum(seconds) / len(seconds) / 60 if seconds else None
