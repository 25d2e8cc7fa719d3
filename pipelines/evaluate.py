"""Compare teacher, student and baseline on one table of rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from configs.data import Task
from configs.errors import suggest
from distill import adapters
from distill.capture import decoder_layers
from distill.errors import ModelError
from distill.files import write_json
from distill.metrics import Kind, agreement, labelled, main_metric, names, score
from distill.models import ModelSource, load
from distill.quantised import Quantised
from pipelines import latency
from pipelines.score import EncodedRows, permute, predict_rows
from pipelines.verdict import Role, gain, verdict

Trained = Sequence[tuple[int, ModelSource]]
"""The models of a role, by seed; a teacher that serves every seed stands there once."""
Progress = Callable[[Role, int], object]
"""Called with a role and the number of rows just done."""


@dataclass(frozen=True)
class Known:
    """What a model was found to say before the comparison."""

    seed: int
    described: Mapping[str, Any]
    """See `describe`."""
    logits: Tensor
    """[N V], labels in the order of the run"""


@dataclass(frozen=True)
class Comparison:
    """What is compared, and on what."""

    models: Mapping[Role, Trained]
    rows: EncodedRows
    task: Task
    labels: tuple[str, ...]
    """Class names in the order of the run; empty for a regression."""
    data: str
    """What the rows are called in the report."""
    orders: Mapping[Role, Sequence[int] | None] = field(default_factory=dict)
    """For roles whose models number the labels otherwise: the model's output for each label of the run."""
    device: str = "cpu"
    known: Mapping[Role, Known] = field(default_factory=dict)
    """Roles whose models have been run already. They are shown first, and are not timed."""
    quantised: Mapping[Role, Quantised] = field(default_factory=dict)
    """Roles whose models are run as they teach, in fewer bits."""


def evaluate(
    comparison: Comparison,
    output: Path,
    *,
    timed: bool = True,
    seconds: float = 1.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score every model on every row, time them, say whether distillation was worth it; write `output/results.json`.

    Where models are timed, each is for about `seconds` per batch size.
    Raises `ModelError` where a model cannot be scored on the task.
    """
    metric = _metric(comparison)
    models: dict[Role, dict[str, Any]] = {}
    logits: dict[Role, dict[int, Tensor]] = {}
    for role, known in comparison.known.items():
        models[role], logits[role] = dict(known.described), {known.seed: known.logits}
    for role in comparison.models:
        models[role], logits[role] = _run(comparison, role, progress)
    for role, by_seed in logits.items():
        models[role]["seeds"] = {str(seed): _scores(comparison, logits, role, seed) for seed in by_seed}
    setting = _time(comparison, models, seconds) if timed else None
    labels = comparison.rows.labels
    gained = gain(metric, logits.get("student", {}), logits.get("baseline", {}), labels, comparison.labels)
    results = {
        "data": comparison.data,
        "rows": len(comparison.rows),
        "metric": metric,
        "labels": list(comparison.labels),
        "models": models,
        "latency": setting,
        "verdict": verdict(models, metric, gained),
    }
    write_json(output / "results.json", results)
    return results


def _kind(comparison: Comparison) -> Kind:
    match comparison.task.kind:
        case "classification" | "regression" | "tagging" | "masked_lm" as kind:
            return kind
        case "generation" if comparison.task.ranks:
            return "generation"
        case "text":
            raise ModelError("task.kind: a body distilled on plain text has no scores; leave out the evaluate stage")
        case other:
            raise ValueError(f"a {other} is compared by what it writes")


def _metric(comparison: Comparison) -> str:
    """Return the metric that decides, if a model with these labels has it."""
    kind, metric = _kind(comparison), main_metric(comparison.task)
    choices = names(kind, _outputs(comparison), comparison.labels)
    if metric not in choices:
        what = "classes that are no IOB2 tags" if metric == "entity_f1" else f"{len(comparison.labels)} classes"
        raise ModelError(f"task.metric: no `{metric}` of {what}{suggest(metric, choices)}")
    return metric


def _outputs(comparison: Comparison) -> int:
    return 1 if comparison.task.kind == "regression" else len(comparison.labels)


def _run(comparison: Comparison, role: Role, progress: Progress | None) -> tuple[dict[str, Any], dict[int, Tensor]]:
    """Return path and sizes of a role's first model, and every seed's logits [N V], labels in the order of the run."""

    def advance(rows: int) -> None:
        if progress is not None:
            progress(role, rows)

    found: dict[int, Tensor] = {}
    described: dict[str, Any] = {}
    for seed, source in comparison.models[role]:
        model = _load(comparison, role, source)
        described = described or describe(model, source)
        found[seed] = permute(predict_rows(model, comparison.rows, advance), comparison.orders.get(role))
    return described, found


def _load(comparison: Comparison, role: Role, source: ModelSource) -> PreTrainedModel:
    """Load a model that is trained for the task, in fp32 but for what is quantised."""
    held = comparison.quantised.get(role)
    loaded = load(source, comparison.task, comparison.labels, role, quantised=held)
    model, wanted = loaded.model, _outputs(comparison)
    if not loaded.trained_head:
        raise ModelError(f"{role}: {source.path} has no head that was trained; its scores would be random")
    if comparison.task.kind not in ("masked_lm", "generation") and model.config.num_labels != wanted:
        raise ModelError(f"{role}: {source.path} has {model.config.num_labels} outputs, the task needs {wanted}")
    if held is not None:
        return model
    moved: PreTrainedModel = model.to(comparison.device)  # type: ignore[arg-type]
    return moved


def describe(model: PreTrainedModel, source: ModelSource) -> dict[str, Any]:
    """Return where a model lies, its parameters, its MB (10⁶ bytes) as stored (or else in memory), layers and width.

    Of a frozen model in an adapter, `own` are the parameters that the adapter holds, and the MB are the adapter's.
    """
    stored = sum(path.stat().st_size for path in source.folder.glob("*.safetensors")) if source.folder else 0
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {
        "path": source.path,
        "parameters": model.num_parameters(),
        "own": adapters.own_parameters(source.folder),
        "megabytes": (stored or held) / 1e6,
        "layers": model.config.num_hidden_layers,
        "decoder_layers": decoder_layers(model.config),
        "hidden_size": model.config.hidden_size,
    }


def _scores(
    comparison: Comparison, logits: Mapping[Role, Mapping[int, Tensor]], role: Role, seed: int
) -> dict[str, float]:
    """Score one model; all but the teacher are compared with the teacher of their seed too."""
    kind, labels = _kind(comparison), comparison.rows.labels
    found = score(kind, logits[role][seed], labels, comparison.labels)
    if role == "teacher" or "teacher" not in logits:
        return found
    teacher = logits["teacher"]
    both = (logits[role][seed], teacher.get(seed, next(iter(teacher.values()))))
    own, taught = both if labels.ndim == 1 else (side[labelled(labels)] for side in both)
    return found | agreement(kind, own, taught)


def _time(comparison: Comparison, models: Mapping[Role, dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Add the latency of every role's first model, all measured in turns; return the setting."""
    loaded = {role: _load(comparison, role, trained[0][1]) for role, trained in comparison.models.items()}
    runners = {role: latency.runner(model) for role, model in loaded.items()}
    times = latency.measure(runners, comparison.rows, seconds=seconds)
    for role in loaded:
        models[role]["latency"] = times[role]
    return latency.setting(comparison.rows, comparison.device)
