"""What one section must know of another: names that refer, terms that need a teacher, sizes that fit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from configs.data import Held, Source, StageData, Task
from configs.objective import CustomTerm, LogitsTerm, TaskTerm, Term
from configs.origins import Path, hint
from configs.pipeline import Pipeline
from configs.stages import (
    AugmentStage,
    EvaluateStage,
    ExportStage,
    GenerateStage,
    RecordStage,
    SelectStage,
    Stage,
    TrainStage,
)

Findings = Iterator[tuple[Path, str]]

_WRITERS = (AugmentStage, SelectStage)
"""Stages whose rows others read."""
_METRICS = {
    "classification": ("accuracy", "f1", "f1_macro", "mcc"),
    "regression": ("pearson", "spearman"),
    "generation": ("bleu", "chrf", "rouge1", "rouge2", "rougeL"),
    "text": (),
}


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a pipeline that refer to each other; None where a part is itself not valid yet."""

    task: Task | None
    data: Mapping[str, Source | None]
    stages: Mapping[str, Stage | None]


def check(parts: Parts) -> Findings:
    """Yield each path at which parts do not fit together, and what is wrong there."""
    yield from _check_task(parts)
    yield from _check_sources(parts)
    for name, stage in parts.stages.items():
        if name == "fresh":
            yield ("stages", name), "`fresh` means a new model where a stage starts; give the stage another name"
        match stage:
            case TrainStage():
                yield from _check_train(parts, name, stage)
            case AugmentStage():
                yield from _check_source(parts, name, ("data",), stage.data)
            case RecordStage():
                yield from _check_record(parts, name, stage)
            case GenerateStage():
                yield from _check_generate(parts, name, stage)
            case SelectStage():
                yield from _check_stage(parts, name, "generated", stage.generated, _not_generating)
            case EvaluateStage() | ExportStage():
                yield from _check_result(parts, name, stage)


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
                chain = _held_chain(parts, name)
                if chain[-1] == name and len(chain) > 1:
                    circles.update(chain)
                    yield ("data", name, "of"), f"held out of itself: {' → '.join(chain)}"
            case StageData(stage=stage):
                writers = [key for key, other in parts.stages.items() if isinstance(other, _WRITERS)]
                if stage not in parts.stages:
                    yield ("data", name, "stage"), f"there is no stage `{stage}`{hint(stage, writers)}"
                elif parts.stages[stage] is not None and stage not in writers:
                    yield ("data", name, "stage"), f"stage `{stage}` writes no rows{hint(stage, writers)}"


def _held_chain(parts: Parts, name: str) -> list[str]:
    """Return the sources that `name` is held out of, itself first, up to the first one not held or seen before."""
    chain = [name]
    while isinstance(source := parts.data.get(chain[-1]), Held):
        chain.append(source.of)
        if source.of in chain[:-1]:
            break
    return chain


def _check_source(parts: Parts, user: str, at: Path, name: str) -> Findings:
    """Check that a source exists, and that the stage that writes it, if one does, comes before its user."""
    path = ("stages", user, *at)
    if name not in parts.data:
        yield path, f"there is no source `{name}`{hint(name, parts.data)}"
        return
    source = parts.data.get(_held_chain(parts, name)[-1])
    written = isinstance(source, StageData) and isinstance(parts.stages.get(source.stage), _WRITERS)
    if isinstance(source, StageData) and written and source.stage not in _before(parts, user):
        yield path, f"source `{name}` is written by stage `{source.stage}`, which does not come before `{user}`"


def _before(parts: Parts, user: str) -> list[str]:
    names = list(parts.stages)
    return names[: names.index(user)]


def _check_stage(parts: Parts, user: str, key: str, name: str, fault: Callable[[Stage], str]) -> Findings:
    """Check that `name` is a stage before `user` in which `fault` finds none."""
    before, stage = _before(parts, user), parts.stages.get(name)
    fitting = [other for other in before if (known := parts.stages[other]) is not None and not fault(known)]
    if name not in parts.stages:
        what = f"there is no stage `{name}`"
    elif name not in before:
        what = f"stage `{name}` does not come before `{user}`"
    else:
        what = "" if stage is None or not fault(stage) else f"stage `{name}` {fault(stage)}"
    if what:
        yield ("stages", user, key), what + hint(name, [*fitting, "fresh"] if key == "start" else fitting)


def _check_result(parts: Parts, name: str, stage: EvaluateStage | ExportStage) -> Findings:
    yield from _check_source(parts, name, ("data",), stage.data)
    yield from _check_stage(parts, name, "student", stage.student, _not_training("student"))
    kind = parts.task.kind if parts.task is not None else None
    if isinstance(stage, ExportStage):
        yield from _check_formats(kind, name, stage)
        return
    if stage.baseline is not None:
        yield from _check_stage(parts, name, "baseline", stage.baseline, _not_baseline)
    for other in stage.others:
        yield from _check_stage(parts, name, "others", other, _not_training("student"))
    for key in ("others", "decoding"):
        given = getattr(stage, key) != EvaluateStage.model_fields[key].default
        if kind not in (None, "generation") and given:
            yield ("stages", name, key), f"is for texts, and `task.kind` is `{kind}`; leave it out"


def _check_formats(kind: str | None, name: str, stage: ExportStage) -> Findings:
    """Check that an engine runs what the task makes: ONNX classifiers, CTranslate2 models that write."""
    for place, form in enumerate(stage.formats):
        engine = form.removesuffix("_int8")
        wrong = {"onnx": kind == "generation", "ctranslate2": kind not in (None, "generation")}
        if wrong.get(engine):
            yield ("stages", name, "formats", str(place)), f"`{form}` is not for a {kind}"


def _not_training(model: str) -> Callable[[Stage], str]:
    def fault(stage: Stage) -> str:
        if not isinstance(stage, TrainStage):
            return f"is of kind `{stage.kind}` and trains nothing"
        return "" if stage.trains == model else f"trains the {stage.trains}, not the {model}"

    return fault


def _not_baseline(stage: Stage) -> str:
    if fault := _not_training("student")(stage):
        return fault
    return (
        ""
        if isinstance(stage, TrainStage) and stage.teacher == "none"
        else "learns from a teacher, a baseline does not"
    )


def _check_train(parts: Parts, name: str, stage: TrainStage) -> Findings:
    path, training = ("stages", name), stage.training
    for i, source in enumerate(stage.data):
        yield from _check_source(parts, name, ("data", str(i)), source)
    if stage.validation is not None:
        yield from _check_source(parts, name, ("validation",), stage.validation)
    elif training.keep == "best":
        yield (*path, "training", "keep"), "`best` is judged on validation rows; name a source in `validation`"
    if stage.start != "fresh":
        yield from _check_stage(parts, name, "start", stage.start, _not_training(stage.trains))
    if stage.trains == "teacher" and stage.teacher != "none":
        yield (*path, "teacher"), "a stage that trains the teacher learns from labels alone; write `teacher: none`"
    yield from _check_teacher(parts, name, stage)
    if stage.cache is not None:
        yield from _check_cache(parts, name, stage, stage.cache)
    size = training.micro_batch_size
    if size is not None and training.tokens_per_batch is None and size > training.batch_size:
        what = f"{size} is more than the `batch_size` of {training.batch_size} it is a part of"
        yield (*path, "training", "micro_batch_size"), what
    for i, term in enumerate(stage.objective):
        yield from _check_term(parts.task, stage, term, (*path, "objective", str(i)))


def _check_teacher(parts: Parts, name: str, stage: TrainStage) -> Findings:
    """Check that a teacher that is trained in this run is trained before the stage learns from it, and once."""
    if stage.trains == "student" and stage.teacher == "task":
        yield from _check_trained(parts, name, "learns from")
    trained = _teachers(parts)
    if _trains_teacher(stage) and trained[0] != name:
        yield ("stages", name, "trains"), f"stage `{trained[0]}` trains the teacher already; a run has one teacher"


def _check_trained(parts: Parts, name: str, does: str) -> Findings:
    later = [other for other in _teachers(parts) if other not in _before(parts, name)]
    if later:
        yield ("stages", name), f"{does} the teacher that stage `{later[0]}` trains, and comes before that stage"


def _teachers(parts: Parts) -> list[str]:
    return [name for name, stage in parts.stages.items() if _trains_teacher(stage)]


def _check_record(parts: Parts, name: str, stage: RecordStage) -> Findings:
    for i, source in enumerate(stage.data):
        yield from _check_source(parts, name, ("data", str(i)), source)
    if parts.task is not None and parts.task.kind == "text":
        yield ("stages", name, "kind"), "`record` writes logits, which need a task, and `task.kind` is `text`"
    kept = stage.top_k != RecordStage.model_fields["top_k"].default
    if parts.task is not None and parts.task.kind != "generation" and kept:
        yield ("stages", name, "top_k"), f"is for texts, and `task.kind` is `{parts.task.kind}`; leave it out"
    if stage.teacher == "task":
        yield from _check_trained(parts, name, "records")


def _check_generate(parts: Parts, name: str, stage: GenerateStage) -> Findings:
    for i, source in enumerate(stage.data):
        yield from _check_source(parts, name, ("data", str(i)), source)
    if parts.task is not None and parts.task.kind != "generation":
        yield ("stages", name, "kind"), f"`generate` writes texts, and `task.kind` is `{parts.task.kind}`"
    if stage.teacher == "task":
        yield from _check_trained(parts, name, "writes with")


def _not_generating(stage: Stage) -> str:
    return "" if isinstance(stage, GenerateStage) else f"is of kind `{stage.kind}` and writes no texts"


def _check_cache(parts: Parts, name: str, stage: TrainStage, cache: str) -> Findings:
    """Check that a stage reads what its own teacher said of its own rows."""
    path = ("stages", name, "cache")
    if stage.teacher == "none" or stage.trains == "teacher":
        yield path, "holds a teacher's logits, and this stage has no teacher; leave it out"
        return
    faults = list(_check_stage(parts, name, "cache", cache, _not_recording))
    yield from faults
    record = parts.stages.get(cache)
    if faults or not isinstance(record, RecordStage):
        return
    if record.teacher != stage.teacher:
        yield path, f"stage `{cache}` records the teacher `{record.teacher}`, this stage learns from `{stage.teacher}`"
    for source in dict.fromkeys(stage.data):
        if source not in record.data:
            yield path, f"stage `{cache}` does not record source `{source}`; Recorded: {', '.join(record.data)}"


def _not_recording(stage: Stage) -> str:
    return "" if isinstance(stage, RecordStage) else f"is of kind `{stage.kind}` and records nothing"


def _trains_teacher(stage: Stage | None) -> bool:
    return isinstance(stage, TrainStage) and stage.trains == "teacher"


def _check_term(task: Task | None, stage: TrainStage, term: Term, path: Path) -> Findings:
    if (stage.teacher == "none" or stage.trains == "teacher") and not isinstance(term, TaskTerm | CustomTerm):
        yield (*path, "kind"), f"`{term.kind}` needs a teacher, and this stage has none; Choices: custom, task"
    match task, term:
        case Task(kind="text"), TaskTerm() | LogitsTerm():
            allowed = "attention, custom, embeddings, hidden, relations"
            yield (*path, "kind"), f"`{term.kind}` needs a task, and `task.kind` is `text`; Choices: {allowed}"
        case Task(kind="regression"), LogitsTerm(divergence=divergence) if divergence != "mse":
            yield (
                (*path, "divergence"),
                f"`{divergence}` compares classes, and `task.kind` is `regression`; Choices: mse",
            )
        case Task(kind="regression"), TaskTerm(label_smoothing=amount) if amount > 0:
            yield (*path, "label_smoothing"), "smooths classes, and `task.kind` is `regression`; leave it out"
