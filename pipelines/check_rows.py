"""Whether the rows of a run are what its stages need."""

from collections.abc import Iterator, Mapping

from rich.table import Table

from configs.data import StageData
from configs.objective import TaskTerm
from configs.stages import EvaluateStage, ExportStage, RecordedStage, SelectStage, Stage, TrainStage
from distill.errors import DataError
from pipelines.run import Run
from pipelines.select import sources_of


def check_rows(run: Run, found: Table) -> None:
    """Say how many rows each source has, and why others were left out. Raise DataError for one without any, and for
    rows without targets or labels where a stage needs them.
    """
    for name, source in run.config.data.items():
        if isinstance(source, StageData):
            continue
        rows = run.rows(name)
        if not len(rows):
            raise DataError(f"data.{name}: 0 rows are left{_reasons(rows.notes)}")
        found.add_row(f"data.{name}", f"{len(rows):,} rows{_reasons(rows.notes)}")
    _targets(run)
    _labels(run)
    for name, stage in run.config.stages.items():
        if isinstance(stage, TrainStage) and not any(isinstance(run.config.data[one], StageData) for one in stage.data):
            check_gold(run, name, stage)
    if run.labels:
        shown = ", ".join(run.labels[:6]) + (" …" if len(run.labels) > 6 else "")
        found.add_row("labels", f"{len(run.labels)}: {shown}")


def check_gold(run: Run, name: str, stage: TrainStage) -> None:
    """Check that some row has a label where the task's own loss is learnt. Raise DataError where none has."""
    if run.config.task.kind not in ("classification", "regression"):
        return
    place = next((i for i, term in enumerate(stage.objective) if isinstance(term, TaskTerm)), None)
    if place is not None and not any(run.rows(source).has_labels for source in stage.data):
        raise DataError(
            f"stages.{name}.objective[{place}] (task) needs labels, and no row of {', '.join(stage.data)} has one; "
            "take the term out, or name rows with labels in `data`"
        )


def _targets(run: Run) -> None:
    """Check that rows have targets where something is learnt from them, or compared with them."""
    if run.config.task.kind != "generation":
        return
    for name, stage in run.config.stages.items():
        for key, source in _compared(run, stage):
            if isinstance(run.config.data[source], StageData):
                continue
            targets = run.rows(source).targets
            if None in targets:
                place = targets.index(None) + 1
                raise DataError(f"data.{source}: row {place} has no target, and stages.{name}.{key} needs one")


def _labels(run: Run) -> None:
    """Check that some rows have labels where models are scored by them."""
    if run.config.task.kind not in ("classification", "regression"):
        return
    for name, stage in run.config.stages.items():
        for key, source in _scored(stage):
            if not isinstance(run.config.data[source], StageData) and not run.rows(source).has_labels:
                raise DataError(f"data.{source}: no row has a label, and stages.{name}.{key} needs some")


def _scored(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield which sources a stage scores models on, after the key that names them."""
    match stage:
        case TrainStage(validation=str() as source):
            yield "validation", source
        case EvaluateStage():
            yield "data", stage.data


def _compared(run: Run, stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield which sources a stage needs targets of, after the key that names them."""
    match stage:
        case TrainStage():
            yield from (("data", source) for source in stage.data)
            yield from (("validation", source) for source in filter(None, [stage.validation]))
        case EvaluateStage() | ExportStage():
            yield "data", stage.data
        case SelectStage() if stage.by != "score":
            yield from (("by", source) for source in sources_of(run.config, stage))
        case RecordedStage():
            yield from (("texts", source) for source in stage.texts)


def _reasons(notes: Mapping[str, int]) -> str:
    told = ", ".join(f"{reason} {count:,}" for reason, count in notes.items() if count)
    return f" ({told})" if told else ""
