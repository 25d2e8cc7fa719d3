"""What a stage that learns, records or writes must know of the others: its teacher, its rows, its terms."""

from configs.adapter_checks import check_adapters
from configs.data import Task
from configs.objective import LABEL_TERMS, PADDED_TERMS, LogitsTerm, TaskTerm, Term
from configs.origins import Path
from configs.references import Findings, Parts, check_source, check_stage, not_training, stages_before
from configs.stages import GenerateStage, RecordedStage, RecordStage, SelectStage, Stage, TrainStage
from configs.students import BaseStudent, LayersStudent, SizedStudent
from configs.teachers import FreshTeacher, ShardedTeacher, bits_of

_POSITIONS = ("generation", "tagging", "masked_lm")
"""Tasks whose rows have many target positions."""


def check_train(parts: Parts, name: str, stage: TrainStage) -> Findings:
    """Check a train stage's rows, start, teacher, cache, sizes and terms."""
    path, training = ("stages", name), stage.training
    for i, source in enumerate(stage.data):
        yield from check_source(parts, name, ("data", str(i)), source)
    if stage.validation is not None:
        yield from check_source(parts, name, ("validation",), stage.validation)
    if stage.start != "fresh":
        yield from check_stage(parts, name, "start", stage.start, not_training(stage.trains))
    if stage.trains == "teacher" and stage.teacher != "none":
        yield (*path, "teacher"), "a stage that trains the teacher learns from labels alone; write `teacher: none`"
    yield from _check_teacher(parts, name, stage)
    yield from _check_weights(parts, name, stage)
    if stage.adapters:
        yield from check_adapters(parts, name, stage)
    if stage.cache is not None:
        yield from _check_cache(parts, name, stage, stage.cache)
    if stage.top_k is not None:
        yield from _check_top_k(parts, name, stage)
    yield from _check_validation(parts, name, stage)
    if training.freeze and _is_new(parts, stage):
        what = f"keeps weights as they are, and those of the {stage.trains} are random when this stage starts"
        yield (*path, "training", "freeze"), what
    size = training.micro_batch_size
    if size is not None and training.tokens_per_batch is None and size > training.batch_size:
        what = f"{size} is more than the `batch_size` of {training.batch_size} it is a part of"
        yield (*path, "training", "micro_batch_size"), what
    for i, term in enumerate(stage.objective):
        yield from _check_term(parts.task, stage, term, (*path, "objective", str(i)))
        if training.padding == "dynamic" and isinstance(term, PADDED_TERMS) and term.reduction == "huawei":
            what = (
                "`huawei` counts padding, and without `training.padding: fixed` how much depends on how batches are cut"
            )
            yield (*path, "objective", str(i), "reduction"), what


def _check_validation(parts: Parts, name: str, stage: TrainStage) -> Findings:
    """Check that there is something to judge weights by."""
    path, training = ("stages", name, "training"), stage.training
    if stage.validation is not None and parts.task is not None and parts.task.kind == "text":
        yield ("stages", name, "validation"), "students of plain text have no head and no score; leave it out"
    if stage.validation is None and training.keep == "best":
        yield (*path, "keep"), "`best` is judged on validation rows; name a source in `validation`"
    if not training.validate_texts:
        return
    if parts.task is not None and parts.task.kind != "generation":
        yield (*path, "validate_texts"), f"is for texts, and `task.kind` is `{parts.task.kind}`; leave it out"
    elif stage.validation is None:
        yield (*path, "validate_texts"), "texts are written for validation rows; name a source in `validation`"


def _is_new(parts: Parts, stage: TrainStage) -> bool:
    """Whether a stage starts from random weights."""
    model, fresh = (parts.teacher, FreshTeacher) if stage.trains == "teacher" else (parts.student, SizedStudent)
    return stage.start == "fresh" and isinstance(model, fresh)


def _check_teacher(parts: Parts, name: str, stage: TrainStage) -> Findings:
    """Check that a teacher that is trained in this run is trained before the stage learns from it, and once."""
    if stage.trains == "student" and stage.teacher == "task":
        yield from _check_trained(parts, name, "learns from")
    if stage.teacher == "student" and parts.student is not None and parts.adapter is None:
        what = "`student` is the frozen model inside an adapter, and the student has none (student.adapter)"
        yield ("stages", name, "teacher"), what
    trained = _teachers(parts)
    if _trains_teacher(stage) and trained[0] != name:
        yield ("stages", name, "trains"), f"stage `{trained[0]}` trains the teacher already; a run has one teacher"


def _check_weights(parts: Parts, name: str, stage: TrainStage) -> Findings:
    """Check that nothing takes its weights from a teacher that no process holds whole, or as they are."""
    only = _only_teaches(parts)
    if only is None:
        return
    path, (what, why, instead) = ("stages", name), only
    if stage.trains == "teacher":
        yield (*path, "trains"), f"{what} only teaches; train it as {instead}"
    elif isinstance(parts.student, LayersStudent | BaseStudent) and stage.start == "fresh":
        made = f"a student of kind `{parts.student.kind}` is made of the teacher's weights, which {why}"
        yield (*path, "start"), f"{made}; make it a folder first (student.kind: folder)"


def _only_teaches(parts: Parts) -> tuple[str, str, str] | None:
    """Return what a teacher is that is good for its answers alone, why, and what to write instead."""
    if isinstance(parts.teacher, ShardedTeacher):
        return "a sharded teacher (teacher.kind)", "no process holds whole (teacher.kind: sharded)", "`kind: live`"
    if parts.teacher is not None and bits_of(parts.teacher) is not None:
        return "a quantised teacher (teacher.quantise)", "are held rounded (teacher.quantise)", "`quantise: none`"
    return None


def _check_trained(parts: Parts, name: str, does: str) -> Findings:
    later = [other for other in _teachers(parts) if other not in stages_before(parts, name)]
    if later:
        yield ("stages", name), f"{does} the teacher that stage `{later[0]}` trains, and comes before that stage"


def _teachers(parts: Parts) -> list[str]:
    return [name for name, stage in parts.stages.items() if _trains_teacher(stage)]


def check_record(parts: Parts, name: str, stage: RecordStage) -> Findings:
    """Check a record stage's rows, task and teacher."""
    for i, source in enumerate(stage.data):
        yield from check_source(parts, name, ("data", str(i)), source)
    if parts.task is not None and parts.task.kind == "text":
        yield ("stages", name, "kind"), "`record` writes logits, which need a task, and `task.kind` is `text`"
    if parts.task is not None and parts.task.kind == "masked_lm":
        yield ("stages", name, "kind"), "`record` writes logits once, and `masked_lm` hides other words in every step"
    kept = stage.top_k != RecordStage.model_fields["top_k"].default
    if parts.task is not None and parts.task.kind != "generation" and kept:
        yield ("stages", name, "top_k"), f"is for texts, and `task.kind` is `{parts.task.kind}`; leave it out"
    if stage.teacher == "task":
        yield from _check_trained(parts, name, "records")


def check_generate(parts: Parts, name: str, stage: GenerateStage) -> Findings:
    """Check a generate stage's rows, task and teacher."""
    for i, source in enumerate(stage.data):
        yield from check_source(parts, name, ("data", str(i)), source)
    if parts.task is not None and parts.task.kind != "generation":
        yield ("stages", name, "kind"), f"`generate` writes texts, and `task.kind` is `{parts.task.kind}`"
    if stage.teacher == "task":
        yield from _check_trained(parts, name, "writes with")
    only = _only_teaches(parts)
    if stage.endpoint is None and only is not None:
        yield ("stages", name, "kind"), f"writes with the teacher's weights, which {only[1]}; take {only[2]}"


def check_recorded(parts: Parts, name: str, stage: RecordedStage) -> Findings:
    """Check a recorded stage's rows and task."""
    for key, named in (("texts", stage.texts), ("data", stage.data)):
        for i, source in enumerate(named):
            yield from check_source(parts, name, (key, str(i)), source)
    if parts.task is not None and parts.task.kind != "generation":
        yield ("stages", name, "kind"), f"`recorded` takes texts, and `task.kind` is `{parts.task.kind}`"


def check_select(parts: Parts, name: str, stage: SelectStage) -> Findings:
    """Check that there are texts to choose from, what they are compared with, and scores where they are weighted."""
    yield from check_stage(parts, name, "generated", stage.generated, _not_writing)
    written = parts.stages.get(stage.generated)
    if isinstance(written, RecordedStage) and stage.by != "score" and not written.data:
        what = f"`{stage.by}` compares with targets of the rows' own, and stage `{stage.generated}` has texts alone"
        yield ("stages", name, "by"), f"{what}; name the rows in its `data`"
    if stage.hypotheses > 1 and isinstance(written, GenerateStage | RecordedStage):
        yield from _check_hypotheses(name, stage, written)


def _check_hypotheses(name: str, stage: SelectStage, written: GenerateStage | RecordedStage) -> Findings:
    path = ("stages", name, "hypotheses")
    if isinstance(written, RecordedStage):
        yield path, f"several are weighted by scores, and texts of stage `{stage.generated}` have none; keep 1"
    elif written.endpoint is not None:
        yield path, f"several are weighted by scores, and the endpoint of stage `{stage.generated}` tells none; keep 1"
    elif stage.hypotheses > written.decoding.hypotheses:
        yield path, f"{stage.hypotheses} of {written.decoding.hypotheses} that stage `{stage.generated}` writes"


def _not_writing(stage: Stage) -> str:
    wrote = isinstance(stage, GenerateStage | RecordedStage)
    return "" if wrote else f"is of kind `{stage.kind}` and writes no texts"


def _check_cache(parts: Parts, name: str, stage: TrainStage, cache: str) -> Findings:
    """Check that a stage reads what its own teacher said of its own rows."""
    path = ("stages", name, "cache")
    if stage.teacher == "none" or stage.trains == "teacher":
        yield path, "holds a teacher's logits, and this stage has no teacher; leave it out"
        return
    faults = list(check_stage(parts, name, "cache", cache, _not_recording))
    yield from faults
    record = parts.stages.get(cache)
    if faults or not isinstance(record, RecordStage):
        return
    if record.teacher != stage.teacher:
        yield path, f"stage `{cache}` records the teacher `{record.teacher}`, this stage learns from `{stage.teacher}`"
    for source in dict.fromkeys(stage.data):
        if source not in record.data:
            yield path, f"stage `{cache}` does not record source `{source}`; Recorded: {', '.join(record.data)}"


def _check_top_k(parts: Parts, name: str, stage: TrainStage) -> Findings:
    """Check that there are outputs to choose from."""
    path = ("stages", name, "top_k")
    if parts.task is not None and parts.task.kind not in _POSITIONS:
        yield path, f"is for {', '.join(_POSITIONS)}, and `task.kind` is `{parts.task.kind}`; leave it out"
    elif stage.cache is not None:
        yield path, f"stage `{stage.cache}` has recorded a number of them (its `top_k`); leave it out"
    elif stage.teacher == "none" or stage.trains == "teacher":
        yield path, "is of a teacher's outputs, and this stage has none; leave it out"


def _not_recording(stage: Stage) -> str:
    return "" if isinstance(stage, RecordStage) else f"is of kind `{stage.kind}` and records nothing"


def _trains_teacher(stage: Stage | None) -> bool:
    return isinstance(stage, TrainStage) and stage.trains == "teacher"


def _writes(task: Task | None) -> bool:
    return task is not None and task.kind == "generation"


def _check_term(task: Task | None, stage: TrainStage, term: Term, path: Path) -> Findings:
    if (stage.teacher == "none" or stage.trains == "teacher") and not isinstance(term, LABEL_TERMS):
        allowed = "custom, length_normalised, task, unlikelihood" if _writes(task) else "custom, task"
        yield (*path, "kind"), f"`{term.kind}` needs a teacher, and this stage has none; Choices: {allowed}"
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
