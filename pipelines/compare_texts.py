"""The evaluate stage of a run whose models write."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from configs.stages import EvaluateStage
from distill.adapters import is_adapter, read_config
from distill.callbacks.progress import ProgressLine
from distill.data.rows import by_source
from distill.errors import DataError
from distill.metrics import main_metric
from distill.models import Loaded, ModelSource, describing, fingerprint, load, load_config, load_tokenizer
from distill.protocols import TextTeacher
from distill.virtual import learned_by
from pipelines.evaluate_text import TextComparison, evaluate
from pipelines.stage import Stage
from pipelines.trained import evaluation_fingerprint, every_seed
from pipelines.verdict import Role
from teachers.text.build import Asked, build
from teachers.text.sources import too_long


class EvaluateText(Stage[EvaluateStage]):
    """Compare what teacher, student and others write, over all repeats; writes `results.json` and `texts.jsonl`."""

    kind = "evaluate"

    def fingerprint(self) -> str:
        """Depend on the models compared and the rows."""
        return evaluation_fingerprint(self._run, self._config)

    def run(self, output: Path) -> dict[str, Any]:
        """Have the models write, and score what they wrote."""
        run, config = self._run, self._config
        every, models = by_source(run.rows(config.data), config.data), self._models()
        references = {source: every[source] for source in read_by_all(list(every), models.values())}
        if not references:
            raise DataError(f"stages.{self.name}.data: all of {len(every)} sources are longer than a model's positions")
        self._texts = list(references)
        comparison = TextComparison(
            models=models,
            sources=self._texts,
            references=list(references.values()),
            left_out=len(every) - len(references),
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
        asked = Asked(
            engine="auto",
            compute_type="float32",
            folder=folder,
            probes=self._texts[:32],
            decoding=self._config.decoding,
            device=run.device.torch_name,
            threads=run.device.threads,
        )
        return build(loaded, digested, asked).teacher


def read_by_all(texts: Sequence[str], models: Iterable[Sequence[tuple[int, ModelSource]]]) -> list[str]:
    """Return the texts that every model has positions for: all are compared on the same."""
    left: set[int] = set()
    for (_, source), *_ in models:
        described = describing(source, "evaluate")
        words, config = load_tokenizer(described, "evaluate"), load_config(described, "evaluate")
        folder = source.folder
        before = 0 if folder is None or not is_adapter(folder) else learned_by(read_config(folder, "evaluate")).tokens
        left |= {place for place, _ in too_long(texts, words, config, before)}
    return [text for place, text in enumerate(texts) if place not in left]
