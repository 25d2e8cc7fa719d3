"""What one section must know of another: names that refer, terms that need a teacher, sizes that fit."""

from configs.adapters import Bottleneck, MixAndMatch, Prefix
from configs.choice_checks import check_choices
from configs.data import Held, StageData
from configs.learning_checks import check_generate, check_record, check_recorded, check_select, check_train
from configs.machine_checks import check_machine
from configs.objective import CustomTerm
from configs.origins import Path, hint
from configs.pipeline import Pipeline
from configs.references import WRITERS, Findings, Parts, check_source, check_stage, held_chain, not_training
from configs.stages import (
    AugmentStage,
    EvaluateStage,
    ExportStage,
    GenerateStage,
    RecordedStage,
    RecordStage,
    SelectStage,
    Stage,
    TrainStage,
)
from configs.vocabulary_checks import check_vocabulary

_METRICS = {
    "classification": ("accuracy", "f1", "f1_macro", "mcc"),
    "regression": ("pearson", "spearman"),
    "tagging": ("accuracy", "f1_macro", "entity_f1"),
    "masked_lm": ("masked_accuracy", "log_prob"),
    "generation": ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "accuracy"),
    "text": (),
}

WHOLE = ("transformers", "ctranslate2", "ctranslate2_int8")
"""Formats of plain models."""


def check(parts: Parts) -> Findings:
    """Yield each path at which parts do not fit together, and what is wrong there."""
    yield from _check_task(parts)
    yield from _check_sources(parts)
    yield from check_vocabulary(parts)
    yield from check_choices(parts)
    yield from check_machine(parts)
    for name, stage in parts.stages.items():
        if name == "fresh":
            yield ("stages", name), "`fresh` means a new model where a stage starts; give the stage another name"
        match stage:
            case TrainStage():
                yield from check_train(parts, name, stage)
            case AugmentStage():
                yield from check_source(parts, name, ("data",), stage.data)
                if parts.task is not None and parts.task.kind == "tagging":
                    yield ("stages", name, "kind"), "`augment` replaces words, and `tagging` needs a class for each"
            case RecordStage():
                yield from check_record(parts, name, stage)
            case GenerateStage():
                yield from check_generate(parts, name, stage)
            case RecordedStage():
                yield from check_recorded(parts, name, stage)
            case SelectStage():
                yield from check_select(parts, name, stage)
            case EvaluateStage() | ExportStage():
                yield from _check_result(parts, name, stage)


def parts_of(pipeline: Pipeline) -> Parts:
    """Return the parts of a pipeline that refer to each other."""
    given = (pipeline.teacher, pipeline.student, pipeline.machine)
    return Parts(pipeline.task, pipeline.data, pipeline.stages, *given)


def custom_paths(pipeline: Pipeline) -> list[str]:
    """Return the paths of terms that run code of the user's own, such as `stages.train.objective.1`."""
    return [
        f"stages.{name}.objective.{i}"
        for name, stage in pipeline.stages.items()
        if isinstance(stage, TrainStage)
        for i, term in enumerate(stage.objective)
        if isinstance(term, CustomTerm)
    ]


def _check_task(parts: Parts) -> Findings:
    task = parts.task
    if task is not None and task.metric is not None and task.metric not in _METRICS[task.kind]:
        what = f"`{task.metric}` does not measure {task.kind}"
        yield ("task", "metric"), what + hint(task.metric, _METRICS[task.kind])


def _check_sources(parts: Parts) -> Findings:
    circles: set[str] = set()
    for name, source in parts.data.items():
        match source:
            case Held(of=of) if of not in parts.data:
                others = [other for other in parts.data if other != name]
                yield ("data", name, "of"), f"there is no source `{of}`{hint(of, others)}"
            case Held() if name not in circles:
                chain = held_chain(parts, name)
                if chain[-1] == name and len(chain) > 1:
                    circles.update(chain)
                    yield ("data", name, "of"), f"held out of itself: {' → '.join(chain)}"
            case StageData(stage=stage):
                writers = [key for key, other in parts.stages.items() if isinstance(other, WRITERS)]
                if stage not in parts.stages:
                    yield ("data", name, "stage"), f"there is no stage `{stage}`{hint(stage, writers)}"
                elif parts.stages[stage] is not None and stage not in writers:
                    yield ("data", name, "stage"), f"stage `{stage}` writes no rows{hint(stage, writers)}"


def _check_result(parts: Parts, name: str, stage: EvaluateStage | ExportStage) -> Findings:
    yield from check_source(parts, name, ("data",), stage.data)
    yield from check_stage(parts, name, "student", stage.student, not_training("student"))
    kind = parts.task.kind if parts.task is not None else None
    if isinstance(stage, ExportStage):
        yield from _check_formats(parts, name, stage)
        return
    if kind == "text":
        yield ("stages", name, "kind"), "`evaluate` compares scores, and plain text has none; leave the stage out"
    if stage.baseline is not None:
        yield from check_stage(parts, name, "baseline", stage.baseline, _not_baseline)
    for other in stage.others:
        yield from check_stage(parts, name, "others", other, not_training("student"))
    if stage.below is not None:
        yield from _check_below(parts, ("stages", name, "below"))
    for key in ("others", "decoding"):
        given = getattr(stage, key) != EvaluateStage.model_fields[key].default
        if kind not in (None, "generation") and given:
            yield ("stages", name, key), f"is for texts, and `task.kind` is `{kind}`; leave it out"


def _check_below(parts: Parts, path: Path) -> Findings:
    """Check that there is an adapter whose place another one can take."""
    adapter = parts.adapter
    stacked = isinstance(adapter, Bottleneck | MixAndMatch | Prefix) and adapter.on
    if parts.task is not None and parts.task.kind == "generation":
        yield path, "swaps adapters of models that do not write, and `task.kind` is `generation`; leave it out"
    elif parts.student is not None and not stacked:
        yield path, "takes the place of an adapter under the student's, and there is none (student.adapter.on)"


def _check_formats(parts: Parts, name: str, stage: ExportStage) -> Findings:
    """Check that an engine runs what the task makes: ONNX classifiers, CTranslate2 models that write; and that the
    student has an adapter, or one that its weights can take in, where a format needs that.
    """
    kind = parts.task.kind if parts.task is not None else None
    adapter = parts.adapter
    for place, form in enumerate(stage.formats):
        engine = form.removesuffix("_int8")
        wrong = {"onnx": kind == "generation", "ctranslate2": kind not in (None, "generation")}
        if wrong.get(engine):
            yield ("stages", name, "formats", str(place)), f"`{form}` is not for a {kind}"
        if form == "adapter" and parts.student is not None and adapter is None:
            yield ("stages", name, "formats", str(place)), "the student has no adapter (student.adapter)"
        if adapter is not None and not adapter.mergeable and form in WHOLE:
            what = f"`{form}` is the whole model, whose weights cannot take in an adapter of kind `{adapter.kind}`"
            yield ("stages", name, "formats", str(place)), f"{what}; Choices: adapter, onnx, onnx_int8"


def _not_baseline(stage: Stage) -> str:
    if fault := not_training("student")(stage):
        return fault
    return (
        ""
        if isinstance(stage, TrainStage) and stage.teacher == "none"
        else "learns from a teacher, a baseline does not"
    )
