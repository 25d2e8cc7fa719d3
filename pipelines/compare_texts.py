"""The evaluate stage of a run whose models write."""

from pathlib import Path
from typing import Any

from configs.stages import EvaluateStage
from distill.callbacks.progress import ProgressLine
from distill.data.rows import by_source
from distill.metrics import main_metric
from distill.models import Loaded, ModelSource, fingerprint, load
from distill.protocols import TextTeacher
from pipelines.evaluate_text import TextComparison, evaluate
from pipelines.stage import Stage
from pipelines.trained import evaluation_fingerprint, every_seed
from pipelines.verdict import Role
from teachers.text.build import Asked, build


class EvaluateText(Stage[EvaluateStage]):
    """Compare what teacher, student and others write, over all repeats; writes `results.json` and `texts.jsonl`."""

    kind = "evaluate"

    def fingerprint(self) -> str:
        """Depend on the models compared and the rows."""
        return evaluation_fingerprint(self._run, self._config)

    def run(self, output: Path) -> dict[str, Any]:
        """Have the models write, and score what they wrote."""
        run, config = self._run, self._config
        references = by_source(run.rows(config.data), config.data)
        self._texts = list(references)
        comparison = TextComparison(
            models=self._models(),
            sources=self._texts,
            references=list(references.values()),
            data=config.data,
            metric=main_metric(run.config.task),
            decoding=config.decoding,
            load=self._load,
            writer=self._writer,
        )
        total = len(references) * sum(len(trained) for trained in comparison.models.values())
        with ProgressLine(run.console, self.title, "rows") as line:
            results = evaluate(comparison, output, line.counter(total))
        run.screen.comparison(results)
        return {"verdict": results["verdict"], "metric": results["metric"]}

    def _models(self) -> dict[Role, list[tuple[int, ModelSource]]]:
        run, config = self._run, self._config
        models: dict[Role, list[tuple[int, ModelSource]]] = {
            "student": every_seed(run, config.student),
        }
        if run.has_teacher and not run.teacher_is_sharded:
            models = {"teacher": [(run.config.seed, run.teacher_source("task"))], **models}
        if config.baseline is not None:
            models["baseline"] = every_seed(run, config.baseline)
        return models | {name: every_seed(run, name) for name in config.others}

    def _load(self, role: Role, path: str) -> Loaded:
        return load(ModelSource(path), self._run.config.task, (), role)

    def _writer(self, loaded: Loaded, path: str) -> TextTeacher:
        run = self._run
        digested = fingerprint(ModelSource(path))
        folder = run.cache / "ctranslate2" / digested
        asked = Asked("auto", "float32", folder, self._texts[:32], run.device.torch_name, run.device.threads)
        return build(loaded, digested, asked).teacher
