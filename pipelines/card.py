"""The model card of an exported student."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from markupsafe import Markup

from pipelines.report import metrics_of, models_of, templates
from pipelines.run_files import RunFiles
from pipelines.verdict import TITLES

HUB_METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "f1_macro": "f1",
    "entity_f1": "f1",
    "mcc": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "mse": "mse",
    "bleu": "bleu",
    "chrf": "chrf",
    "rouge1": "rouge",
    "rouge2": "rouge",
    "rougeL": "rouge",
}
"""What the hub calls our metrics."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def model_card(run: Path, loader: str = "") -> str:
    """Write the card of a run's student: front matter for the hub, use, scores, latency, recipe, data, limits.

    It says what the run's files say; parts that are not there yet, as scores before the evaluate stage, are left out.
    `loader` is transformers' Auto class of a model that writes.
    """
    files = RunFiles(run)
    evaluation, config = files.evaluation, files.config
    task = config.get("task", {})
    view = {
        "front": Markup(front_matter(files).to_yaml().strip()),  # YAML escapes for itself
        "name": files.title,
        "about": files.record.get("about", ""),
        "kind": task.get("kind", "classification"),
        "task": task,
        "units": {"tagging": "words", "masked_lm": "hidden tokens"}.get(task.get("kind"), "rows"),
        "loader": loader,
        "teacher": config.get("teacher", {}).get("model", ""),
        "evaluation": evaluation,
        "verdict": evaluation.get("verdict", {}),
        "title": TITLES.get(evaluation.get("metric", ""), ""),
        "models": models_of(evaluation),
        "metrics": metrics_of(evaluation),
        "stages": [(name, stage) for name, stage in config.get("stages", {}).items() if stage.get("kind") == "train"],
        "sources": config.get("data", {}),
        "recorded": [(stage.name, stage.results) for stage in files.stages if stage.kind == "recorded"],
        "seeds": config.get("repeats", 1),
    }
    return templates().get_template("card.md.j2").render(view)


def front_matter(files: RunFiles) -> ModelCardData:
    """Return what the hub reads: library, task, teacher, data, scores; what lies in a local folder is left out."""
    config = files.config
    teacher = config.get("teacher", {}).get("model", "")
    sources = [source for source in config.get("data", {}).values() if source.get("format") == "hub"]
    results = _results(files.evaluation, _pipeline_tag(config))
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=_pipeline_tag(config),
        base_model=teacher if on_hub(teacher) else None,
        datasets=sorted({source["path"] for source in sources}) or None,
        tags=["distillation", "knowledge-distillation"],
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=files.title if results else None,
        eval_results=results or None,
    )


def _results(evaluation: Mapping[str, Any], task: str) -> list[EvalResult]:
    """Return the student's scores, means over seeds."""
    seeds = evaluation.get("models", {}).get("student", {}).get("seeds", {})
    names = [name for name in metrics_of(evaluation) if name in HUB_METRICS and seeds]
    return [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w.-]+", "-", evaluation["data"]),
            dataset_name=evaluation["data"],
            metric_type=HUB_METRICS[name],
            metric_name=name,
            metric_value=round(sum(scores[name] for scores in seeds.values()) / len(seeds), 4),
        )
        for name in names
    ]


def _pipeline_tag(config: Mapping[str, Any]) -> str:
    tags = {"text": "feature-extraction", "generation": "text2text-generation"}
    tags |= {"tagging": "token-classification", "masked_lm": "fill-mask"}
    return tags.get(config.get("task", {}).get("kind"), "text-classification")


def on_hub(name: str) -> bool:
    """Whether a model's name is one of the hub, not of a folder."""
    return HUB_NAME.fullmatch(name) is not None and not Path(name).exists()
