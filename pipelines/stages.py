"""The stages of a run, in the order they are walked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from configs.stages import (
    AugmentStage,
    EvaluateStage,
    ExportStage,
    GenerateStage,
    RecordedStage,
    RecordStage,
    SelectStage,
    TrainStage,
)
from distill.callbacks.progress import ProgressLine
from distill.errors import DataError
from distill.files import digest
from distill.models import Loaded, ModelSource, auto_class, load_config
from pipelines import evaluate, export, export_text
from pipelines.augment import Augment
from pipelines.card import model_card
from pipelines.compare_texts import EvaluateText, read_by_all
from pipelines.frozen_teacher import frozen_teacher
from pipelines.generate import Generate
from pipelines.meet import meet
from pipelines.record import RecordTeacher
from pipelines.recorded import Recorded
from pipelines.run import Run
from pipelines.score import EncodedRows, predict_in_step
from pipelines.select import Select
from pipelines.stage import Stage
from pipelines.train import Train
from pipelines.trained import best_seed, evaluation_fingerprint, every_seed, trained
from pipelines.verdict import Role


def stages(run: Run) -> Iterator[Stage[Any]]:
    """Yield the stages in order; one that the repeats do not share comes once for each of them."""
    for name, config in run.config.stages.items():
        match config:
            case TrainStage():
                yield from (Train(run, name, config, seed) for seed in run.seeds_of(name))
            case AugmentStage():
                yield Augment(run, name, config)
            case RecordStage():
                yield RecordTeacher(run, name, config)
            case GenerateStage():
                yield Generate(run, name, config)
            case RecordedStage():
                yield Recorded(run, name, config)
            case SelectStage():
                yield Select(run, name, config)
            case EvaluateStage() if run.config.task.kind == "generation" and not run.config.task.ranks:
                yield EvaluateText(run, name, config)
            case EvaluateStage():
                yield Evaluate(run, name, config)
            case ExportStage():
                yield Export(run, name, config)


class Evaluate(Stage[EvaluateStage]):
    """Compare teacher, student and baseline over all repeats; writes `results.json`."""

    kind = "evaluate"

    def fingerprint(self) -> str:
        """Depend on the models compared and the rows."""
        return evaluation_fingerprint(self._run, self._config)

    def run(self, output: Path) -> dict[str, Any]:
        """Score and time the models."""
        run, config = self._run, self._config
        rows = run.scored_rows(config.data)
        models: dict[Role, list[tuple[int, ModelSource]]] = {"student": every_seed(run, config.student, config.below)}
        if config.baseline is not None:
            models["baseline"] = every_seed(run, config.baseline, config.below)
        loaded = run.load_teacher("task") if run.has_teacher else None
        scored = loaded is not None and loaded.trained_head
        if scored and not run.teacher_is_sharded:
            models = {"teacher": [(run.config.seed, run.teacher_source("task"))], **models}
        order = None if loaded is None else run.label_order(loaded)
        comparison = evaluate.Comparison(
            models=models,
            rows=rows,
            task=run.config.task,
            labels=run.labels,
            data=config.data,
            orders={"teacher": order},
            quantised={} if run.quantised is None else {"teacher": run.quantised},
            device=run.device.torch_name,
        )
        total = len(rows) * (sum(len(folders) for folders in models.values()) + run.teacher_is_sharded)
        with ProgressLine(run.console, self.title, "rows") as line:
            progress = line.counter(total)
            if scored and loaded is not None and run.teacher_is_sharded:
                comparison = replace(comparison, known={"teacher": self._sharded(loaded, rows, progress)})
            results = evaluate.evaluate(comparison, output, timed=config.latency, progress=progress)
        run.screen.comparison(results)
        return {"verdict": results["verdict"], "metric": results["metric"]}

    def help(self, output: Path) -> None:
        """Ask a sharded teacher together with rank 0."""
        if not self._run.teacher_is_sharded:
            return
        loaded = self._run.load_teacher("task")
        if loaded.trained_head:
            self._sharded(loaded, self._run.scored_rows(self._config.data), lambda role, rows: None)

    def _sharded(self, loaded: Loaded, rows: EncodedRows, progress: evaluate.Progress) -> evaluate.Known:
        """Return what a teacher that no process holds says, in the type it teaches in."""
        run = self._run
        device, source = meet(run), run.teacher_source("task")
        teacher = frozen_teacher(run, "task", loaded)
        teacher.to(device)
        logits = predict_in_step(teacher, rows, device, lambda more: progress("teacher", more))
        return evaluate.Known(run.config.seed, evaluate.describe(loaded.model, source), logits)


class Export(Stage[ExportStage]):
    """Write the student in the formats asked for, each checked; writes `results.json`."""

    kind = "export"

    def fingerprint(self) -> str:
        """Depend on the students to choose from, the formats and the rows."""
        run, config = self._run, self._config
        trained = [run.stage_fingerprint(config.student, seed) for seed in run.seeds_of(config.student)]
        return digest("export", config.model_dump_json(), run.source_fingerprint(config.data), *trained)

    def run(self, output: Path) -> dict[str, Any]:
        """Export the best student."""
        run, config = self._run, self._config
        source = trained(run, config.student, best_seed(run, config.student))
        if run.config.task.kind == "generation":
            texts = read_by_all([row.text for row in run.rows(config.data)], [[(0, source)]])
            if not texts:
                raise DataError(f"stages.{self.name}.data: all sources are longer than the student's positions")
            writing = export_text.Writing(
                source=source,
                sources=texts[: export_text.ROWS],
                rows=run.scored_rows(config.data),
                task=run.config.task,
                card=model_card(run.folder, auto_class(run.config.task, load_config(source, "export")).__name__),
                threads=run.device.threads,
            )
            return export_text.export(writing, cast(tuple[export_text.TextFormat, ...], config.formats), output)
        student = export.Trained(
            source=source,
            rows=run.scored_rows(config.data),
            task=run.config.task,
            labels=run.labels,
            card=model_card(run.folder),
        )
        return export.export(student, cast(tuple[export.Format, ...], config.formats), output)
