"""The select stage: which of the teacher's texts students learn from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.data import Task
from configs.filters import Filters
from configs.pipeline import Pipeline
from configs.stages import GenerateStage, RecordedStage, SelectStage
from distill.data.rows import Row, Rows
from distill.data.sources import METADATA
from distill.errors import DataError
from distill.files import digest, write_atomically
from distill.models import ModelSource, fingerprint, load
from pipelines.generate import SHARDS, different
from pipelines.stage import Stage, results_of
from teachers.text.filters import Candidate, counts, reasons
from teachers.text.forced import mean_log_probs
from teachers.text.select import oracle, scorer, weights
from teachers.text.store import gather

CHOICES = "choices"
UNSCORED = "longer than its positions"
"""Why the model of the reverse direction says nothing of a text; such a text is none of the `worst`."""


def sources_of(config: Pipeline, stage: SelectStage) -> tuple[str, ...]:
    """Return the names of the sources that a stage's texts were written for."""
    match config.stages[stage.generated]:
        case GenerateStage() as generate:
            return generate.data
        case RecordedStage() as recorded:
            return recorded.data or recorded.texts
        case other:
            raise AssertionError(other.kind)  # the checks of a configuration refuse it


def reverse_of(config: Pipeline) -> dict[str, tuple[ModelSource, Task]]:
    """Return the models of the reverse direction that select stages ask, by what a run's file calls them, and their
    task.
    """
    task = config.task
    turned = {"source_language": task.target_language, "target_language": task.source_language}
    return {
        f"stages.{name}.reverse": (ModelSource(stage.reverse), task.model_copy(update=turned))
        for name, stage in config.stages.items()
        if isinstance(stage, SelectStage) and stage.reverse is not None
    }


@dataclass(frozen=True)
class Choice:
    """What was chosen for a row."""

    row: Row
    number: int
    """Which of the hypotheses"""
    text: str
    score: float | None
    """The teacher's"""
    likeness: float | None
    """To the row's own target, 0 to 100; none where that was not asked for"""
    ended: bool


class Select(Stage[SelectStage]):
    """Writes the rows to learn from, and beside them every choice with the reasons against it."""

    kind = "select"

    def fingerprint(self) -> str:
        """Depend on the texts, the section and the rows they are for."""
        run, config = self._run, self._config
        sources = [run.source_fingerprint(name) for name in self._sources()]
        generated = run.stage_fingerprint(config.generated, None)
        reverse = "" if config.reverse is None else fingerprint(ModelSource(config.reverse))
        return digest("select", config.model_dump_json(), generated, reverse, *sources)

    def run(self, output: Path) -> dict[str, Any]:
        """Choose, filter, write."""
        run, config = self._run, self._config
        rows = Rows.concatenate([run.rows(name) for name in self._sources()])
        rows, texts = rows if config.by != "score" else different(rows), self._texts()
        written = np.isin(rows.ids, np.fromiter(texts, np.int64, len(texts)))
        choices = choose(rows.take(written), texts, config)
        judged = self._judge(choices)
        found = reasons(list(map(_candidate, choices, judged)), config.filters or _NO_FILTERS)
        kept = learnt([choice for choice, why in zip(choices, found, strict=True) if not why], config)
        if not kept:
            raise DataError(f"stages.{self.name}.filters: none of {len(choices)} texts is kept: {counts(found)}")
        notes = {f"texts left out: {name}": count for name, count in counts(found).items()}
        if not written.all():
            notes[f"sources left out, {self._why_unwritten}"] = int((~written).sum())
        unscored = 0 if config.reverse is None else judged.count(None)
        if unscored:
            notes[f"texts not judged by the reverse model, {UNSCORED}"] = unscored
        _write(output / "part-00000.parquet", Rows.of(kept).table, {"part": 0, "parts": 1, "notes": notes})
        _write(output / CHOICES / "choices.parquet", _table(choices, found, judged, config), {"by": config.by})
        told = ", ".join(f"{name} {count:,}" for name, count in counts(found).items())
        return {
            "summary": f"{len(kept):,} of {len(choices):,} texts" + (f" (left out: {told})" if told else ""),
            "kept": len(kept),
            "texts": len(choices),
            "left_out": counts(found),
            "unscored": unscored,
            "likeness": _mean([choice.likeness for choice in choices if choice.likeness is not None]),
            "others_than_first": sum(choice.number > 0 for choice in choices),
        }

    def _sources(self) -> tuple[str, ...]:
        return sources_of(self._run.config, self._config)

    @property
    def _why_unwritten(self) -> str:
        match self._run.config.stages[self._config.generated]:
            case GenerateStage(endpoint=None):
                return "too long for the teacher"
            case GenerateStage():
                return "refused by the API"
            case _:
                return "nobody wrote a text"

    def _judge(self, choices: Sequence[Choice]) -> list[float | None]:
        """Return how likely the model of the reverse direction finds each source; none where there is no such model, or
        it has no positions for the source or the text.
        """
        if self._config.reverse is None:
            return [None] * len(choices)
        where = f"stages.{self.name}.reverse"
        loaded = load(*reverse_of(self._run.config)[where], (), where)
        loaded.model.eval()
        return mean_log_probs(loaded, [choice.text for choice in choices], [choice.row.text for choice in choices])

    def _texts(self) -> dict[int, dict[str, Any]]:
        """Return what the teacher wrote, by the key of the row."""
        folder = self._run.stage_folder(self._config.generated, None)
        done = results_of(folder)["results"]
        table = gather(folder / SHARDS, done["key"], done["shards"])
        return {found["id"]: found for found in table.to_pylist() if found["texts"]}


_NO_FILTERS = Filters(length_ratio=None, repetition=None, copies=None, duplicates=None, unended=False)


def choose(rows: Rows, written: Mapping[int, Mapping[str, Any]], how: SelectStage) -> list[Choice]:
    """Choose for every row the texts its teacher prefers, or by a metric (`bleu`, `chrf`) the one most like the row's
    own target. Raises DataError for a row that has none to compare with.
    """
    score = None if how.by == "score" else scorer("bleu" if how.by == "bleu" else "chrf")
    choices = []
    for place, row in enumerate(rows, 1):
        found = written[row.id]
        numbers, likeness = range(min(how.hypotheses, len(found["texts"]))), None
        if score is not None:
            if row.target is None:
                raise DataError(f"row {place} has no target to compare with; `by: score` needs none")
            best, likeness = oracle(found["texts"], row.target, score)
            numbers = range(best, best + 1)
        choices += [_choice(row, number, found, likeness) for number in numbers]
    return choices


def _choice(row: Row, number: int, found: Mapping[str, Any], likeness: float | None) -> Choice:
    return Choice(row, number, found["texts"][number], found["scores"][number], likeness, found["ended"][number])


def learnt(kept: Sequence[Choice], how: SelectStage) -> list[Row]:
    """Return the rows to learn from; where several texts of a source may be kept, with weights that add up to 1 a
    source. Raises DataError for a text without a score to be weighted by.
    """
    if how.hypotheses == 1:
        return [choice.row._replace(target=choice.text) for choice in kept]
    rows: list[Row] = []
    for _, alike in groupby(kept, key=lambda choice: choice.row.id):
        group = list(alike)
        if any(choice.score is None for choice in group):
            raise DataError(f"hypotheses: {group[0].text!r} has no score to be weighted by; keep 1 of each source")
        shares = weights([choice.score for choice in group if choice.score is not None], how.temperature)
        rows += [one.row._replace(target=one.text, weight=float(w)) for one, w in zip(group, shares, strict=True)]
    return rows


def _candidate(choice: Choice, reverse: float | None) -> Candidate:
    return Candidate(choice.row.text, choice.text, choice.score, choice.ended, reverse)


def _table(
    choices: Sequence[Choice], found: Sequence[tuple[str, ...]], judged: Sequence[float | None], how: SelectStage
) -> pa.Table:
    columns = {
        "id": [choice.row.id for choice in choices],
        "source": [choice.row.text for choice in choices],
        "text": [choice.text for choice in choices],
        "hypothesis": [choice.number for choice in choices],
        "score": [choice.score for choice in choices],
        "likeness": pa.array([choice.likeness for choice in choices], pa.float64()),
        "reasons": pa.array([list(why) for why in found], pa.list_(pa.string())),
    }
    if how.reverse is not None:
        columns["reverse"] = pa.array(judged, pa.float64())
        columns["unscored"] = pa.array([UNSCORED if one is None else None for one in judged], pa.string())
    return pa.table(columns)


def _write(place: Path, table: pa.Table, about: Mapping[str, Any]) -> None:
    place.parent.mkdir(exist_ok=True)
    described = table.replace_schema_metadata({METADATA: json.dumps(about)})
    write_atomically(place, partial(pq.write_table, described, compression="zstd"))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
