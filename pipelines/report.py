"""The report of a run: one HTML file that needs nothing else, and the same as Markdown."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from configs.data import Task
from distill.files import write_text
from distill.metrics import validation_metric
from pipelines import numbers, plots
from pipelines.remarks import remarks
from pipelines.run_files import RunFiles, StageFiles
from pipelines.verdict import GREEDY, PLAIN, TITLES, Role, over_seeds, written

ROLES: tuple[Role, ...] = ("teacher", "student", "baseline")
"""The roles every report has first, in this order."""
BESIDE = {
    "agreement": "with the teacher",
    "ece": "calibration",
    "bleu_greedy": "no search",
    "rougeL_greedy": "no search",
    "chrf": "beam search",
    "sentences_per_second_greedy": "on this machine",
}
"""Metrics the first table shows beside the one that decides, with a word on each."""
KNOWN = {"name", "about", "expect", "config", "command", "started", "launch", "planned"}
"""Keys of `run.json` that have a place of their own, or are for the run itself; the others describe the machine."""
TOTAL = "loss"
"""Column of the sum of all terms."""
SHOWN = 8
"""Class names listed before the rest is only counted."""


@dataclass(frozen=True)
class Tile:
    """A key number."""

    value: str
    unit: str
    label: str
    note: str


@dataclass(frozen=True)
class Panel:
    """One curve plot: a loss term, or a metric on the validation rows."""

    title: str
    plot: Markup
    last: str
    """Value at the end, mean over seeds."""


@dataclass(frozen=True)
class StageView:
    """A stage as the report shows it."""

    files: StageFiles
    share: float
    """Part of the run's time."""
    bar: float
    """Time as part of the longest stage's."""
    panels: list[Panel]


def write_report(run: Path) -> Path:
    """Write `report.html` and `report.md` into a run's folder, from the JSON and CSV files there; return the first.

    Raises `DataError` where one of those files is damaged; what is not written yet is left out.
    """
    view = describe(RunFiles(run))
    write_text(run / "report.md", templates().get_template("report.md.j2").render(view))
    write_text(run / "report.html", templates().get_template("report.html.j2").render(view))
    return run / "report.html"


def describe(files: RunFiles) -> dict[str, Any]:
    """Gather what both forms of the report say."""
    evaluation, record = files.evaluation, files.record
    title = TITLES.get(evaluation.get("metric", ""), evaluation.get("metric", ""))
    return {
        "name": files.title,
        "record": record,
        "evaluation": evaluation,
        "title": title,
        "verdict": evaluation.get("verdict", {}),
        "tiles": tiles(evaluation, title) if evaluation else [],
        "models": models_of(evaluation),
        "evaluations": files.evaluations,
        "roles": roles_of(files.evaluations),
        "metrics": metrics_of(evaluation),
        "beside": [(metric, BESIDE[metric]) for metric in metrics_of(evaluation) if metric in BESIDE],
        "by_size": plots.score_by_size(evaluation, title) if evaluation else "",
        "by_seed": plots.seed_by_seed(evaluation, title) if _has_seeds(evaluation) else "",
        "stages": stage_views(files),
        "remarks": remarks(files),
        "seconds": sum(stage.seconds for stage in files.stages),
        "recorded": [(stage.name, stage.results) for stage in files.stages if stage.kind == "recorded"],
        "exported": files.exported,
        "environment": {key: value for key, value in record.items() if key not in KNOWN},
    }


def tiles(evaluation: Mapping[str, Any], title: str) -> list[Tile]:
    """Return the three or four numbers that matter."""
    facts, models = evaluation["verdict"], evaluation["models"]
    student, teacher = models.get("student"), models.get("teacher")
    found = []
    if facts.get("retained") is not None:
        note = f"{numbers.spread(**facts['student'])} of {numbers.spread(**facts['teacher'])}"
        found.append(Tile(f"{100 * facts['retained']:.1f}", "%", f"of the teacher’s {title} kept", note))
    elif "student" in facts:
        found.append(Tile(numbers.spread(**facts["student"]), "", title, f"on {evaluation['rows']} rows"))
    if "gain" in facts:
        found.append(_gain_tile(facts["gain"]))
    if student and teacher and facts.get("smaller") is not None:
        sizes = [f"{numbers.short_count(model['parameters'])}" for model in (student, teacher)]
        found.append(_ratio_tile(facts["smaller"], "smaller", "larger", f"{sizes[0]} of {sizes[1]} parameters"))
    if student and teacher and facts.get("faster") is not None:
        times = [numbers.milliseconds(model["latency"]["1"]["p50_ms"]) for model in (student, teacher)]
        note = f"{times[0]} ms instead of {times[1]} ms"
        found.append(_ratio_tile(facts["faster"], "faster on single rows", "slower on single rows", note))
    return found


def stage_views(files: RunFiles) -> list[StageView]:
    """Return the stages with their share of the time and their curves."""
    times = [stage.seconds for stage in files.stages]
    total, longest = sum(times) or 1.0, max(times, default=0.0) or 1.0
    return [
        StageView(
            stage, stage.seconds / total, stage.seconds / longest, panels(stage, _decisive(files.config, stage.name))
        )
        for stage in files.stages
    ]


def panels(stage: StageFiles, metric: str | None) -> list[Panel]:
    """Draw a stage's losses, their sum first where there are several, and the metric on its validation rows."""
    names = {name for trace in stage.traces for name in trace.curves}
    terms = sorted(name for name in names if name.startswith("loss/"))
    total = [TOTAL] if TOTAL in names and len(terms) != 1 else []
    scores = sorted(name for name in names if name.startswith("validation/"))
    decisive = [name for name in scores if name == f"validation/{metric}"]
    return [_panel(stage, name) for name in (*total, *terms, *(decisive or scores))]


def models_of(evaluation: Mapping[str, Any]) -> list[tuple[Role, dict[str, Any]]]:
    """Return the models that were compared: those every report has, then the others."""
    models: dict[Role, dict[str, Any]] = evaluation.get("models", {})
    order = (*ROLES, *evaluation.get("roles", ()))
    return [(role, models[role]) for role in dict.fromkeys(order) if role in models]


def roles_of(evaluations: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Role]:
    """Return whose scores stand in any of several evaluations."""
    return list(dict.fromkeys(role for _, found in evaluations for role, _ in models_of(found)))


def metrics_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the metrics in the order of the table: the one that decides first, those about the teacher last."""
    found = {
        name for model in evaluation.get("models", {}).values() for seed in model["seeds"].values() for name in seed
    }
    order = (evaluation.get("metric"), *TITLES)
    known = sorted(found & set(order), key=order.index)
    return [*known, *sorted(found - set(order))]


def templates() -> Environment:
    """Return the templates: everything put in is escaped, and a name that is not there is an error."""
    found = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        name: getattr(numbers, name)
        for name in ("percent", "points", "spread", "short_count", "short", "milliseconds", "megabytes", "duration")
    }
    found.filters |= {
        "markdown": markdown,
        "fence": fence,
        "highlight": highlight,
        "value": written,
        "code": code,
        "metric": metric_title,
        "memory": memory,
    }
    found.filters |= {"over_seeds": over_seeds, "greedily": greedily, "classes": classes}
    return found


def metric_title(name: str) -> str:
    """Return what a metric is called in text."""
    return {**TITLES, "agreement": "agreement", "agreement_kl": "KL to teacher"}.get(name, name)


def greedily(model: Mapping[str, Any], metric: str) -> str:
    """Add what a model scores without a search, where it writes."""
    found = over_seeds(model, f"{metric}{GREEDY}")
    return "" if found == "–" else f", greedily {found}"


def memory(found: Mapping[str, int | None] | None) -> str:
    """Write what a stage was planned to need of a device, and what it took."""
    if not found:
        return "–"
    return " / ".join(
        "–" if size is None else numbers.gigabytes(size) for size in (found["planned"], found["measured"])
    )


def classes(labels: Sequence[str]) -> str:
    """List the class names, a few at most."""
    rest = len(labels) - SHOWN
    return ", ".join(labels[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def markdown(text: object) -> Markup:
    """Escape what Markdown, tables and HTML would read as more than text."""
    flat = html.escape(" ".join(str(text).split()), quote=False)
    return Markup(re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", flat))


def code(text: object) -> Markup:
    """Put text into a Markdown code span, in which everything but its own mark is taken as it is."""
    flat = " ".join(str(text).split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    room = " " if flat.startswith("`") or flat.endswith("`") else ""
    return Markup(f"{ticks}{room}{flat}{room}{ticks}")


def fence(text: str) -> Markup:
    """Put text into a code block with a fence longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markup(f"{ticks}yaml\n{text.rstrip()}\n{ticks}")


def highlight(text: str) -> Markup:
    """Mark keys and comments of YAML, after escaping it."""
    lines = []
    for line in str(escape(text)).splitlines():
        code, mark, comment = line.partition(" # ") if not line.lstrip().startswith("# ") else ("", "", line)
        code = re.sub(r"^(\s*(?:- )?)([\w./-]+)(:)", r"\1<b>\2</b>\3", code)
        lines.append(f"{code}<i>{mark}{comment}</i>" if comment else code)
    return Markup("\n".join(lines))


def _gain_tile(gain: Mapping[str, Any]) -> Tile:
    low, high = map(numbers.points, gain["interval"])
    note = f"ahead on {gain['wins']} of {gain['seeds']} seeds; 95 % interval {low} to {high}"
    if gain["mean"] > 0:
        return Tile(numbers.points(gain["mean"]), "points", "ahead of the same model without a teacher", note)
    where = "behind" if numbers.percent(gain["mean"]) != "0.0" else "level with"
    return Tile(numbers.percent(-gain["mean"]), "points", f"{where} the same model without a teacher", note)


def _ratio_tile(ratio: float, more: str, less: str, note: str) -> Tile:
    written = f"{max(ratio, 1 / ratio):.1f}×"
    return Tile(written, "", f"no {more}" if written == "1.0×" else more if ratio > 1 else less, note)


def _has_seeds(evaluation: Mapping[str, Any]) -> bool:
    return any(role in evaluation.get("models", {}) for role in ("student", "baseline"))


def _decisive(config: Mapping[str, Any], stage: str) -> str | None:
    """Return the metric that decides on a stage's validation rows; plain text has none."""
    task = Task.model_validate_json(json.dumps(config.get("task", {})))
    if task.kind == "text":
        return None
    training = config.get("stages", {}).get(stage, {}).get("training") or {}
    return validation_metric(task, texts=bool(training.get("validate_texts")))


def _panel(stage: StageFiles, name: str) -> Panel:
    found = [(trace.seed, trace.curves[name]) for trace in stage.traces if name in trace.curves]
    last = sum(points[-1][1] for _, points in found) / len(found)
    scored = name.startswith("validation/") and name.removeprefix("validation/") not in PLAIN
    lines = [plots.Line(stage.role, f"seed {seed}" if seed else stage.name, points) for seed, points in found]
    title = name.replace("validation/", "validation · ").replace("loss/", "loss · ")
    title = "loss · total" if name == TOTAL else title
    write = numbers.percent if scored else numbers.short
    return Panel(title, plots.curves(title, lines, write), write(last))
