"""Preflight: all that can be known to be wrong before anything is trained."""

import os
from dataclasses import replace

import torch
from rich.table import Table
from transformers import PretrainedConfig

from configs.data import StageData
from configs.stages import RecordStage, TrainStage
from distill import adapted_model, adapters, heads
from distill.capture import shape_of
from distill.errors import ModelError
from distill.models import Loaded, has_head, label_names, load_config
from distill.objective import Objective
from distill.objective import build as build_objective
from distill.positions import positions
from distill.protocols import Teacher
from distill.virtual import Learned, learned
from pipelines.adapter_teacher import adapter_teacher, student_base
from pipelines.check_rows import check_rows
from pipelines.check_student import check_student
from pipelines.check_texts import check_generations, mark_languages, warn_of_kept
from pipelines.extensions import build_for_disks
from pipelines.memory_plan import check_memory
from pipelines.own_teacher import own_teacher
from pipelines.record import kept
from pipelines.run import Run
from pipelines.score_table import score_table
from pipelines.spread import strategy_of
from pipelines.stage_teacher import cut_down
from pipelines.train_logs import require as require_loggers
from pipelines.words import learnt_by_students
from students.build import build as build_student
from students.build import build_alone
from students.student import Student
from teachers.cached import CachedTeacher
from teachers.live import LiveTeacher
from teachers.none import NoTeacher

SAMPLE = 500
"""Validation rows the teacher is tried on."""
_NOTHING = Learned()


def preflight(run: Run) -> None:
    """Check rows, labels, memory, models and layers; say what was found. Raise UserError for what cannot work."""
    found = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    found.add_row("[bold]run[/]", run.config.about)
    found.add_row("machine", run.device.describe())
    require_loggers(run.config.machine.loggers)
    _precision(run)
    check_rows(run, found)
    _adapter(run)
    run.planned = check_memory(run)
    loaded = run.load_teacher("base") if run.has_teacher else None
    if loaded is not None:
        _tokens(run, loaded, found)
        _new_head(run)
    if run.student_is_alone:
        _own_words(run)
    check_generations(run, loaded)
    _stages(run, loaded, found)
    warn_of_kept(run)
    _disks(run)
    if loaded is not None:
        _teacher_score(run, loaded, found)
    run.console.print(found)


def _precision(run: Run) -> None:
    """Refuse what the device cannot compute in, and warn of what it does slowly."""
    if run.teacher_is_sharded and run.dtype == torch.float16 and run.device.accelerator == "cpu":
        # DeepSpeed's engine refuses it on most processors, once the ranks have met
        raise ModelError("teacher.dtype: float16 of a sharded teacher needs a GPU; Choices here: bfloat16, float32")
    for name, stage in run.config.stages.items():
        precision = stage.training.precision if isinstance(stage, TrainStage) else "fp32"
        at = f"stages.{name}.training.precision"
        if precision == "fp16" and run.device.accelerator == "cpu":
            raise ModelError(f"{at}: fp16 needs a GPU; Choices here: bf16, fp32")
        if precision == "bf16" and not run.device.native_bf16:
            run.screen.warning(f"{at}: bf16 is emulated on this device, far slower than fp32; `auto` takes fp32 here")


def _tokens(run: Run, loaded: Loaded, found: Table) -> None:
    """Check special tokens, vocabulary and length."""
    tokenizer, config = loaded.tokenizer, loaded.model.config
    if tokenizer.pad_token_id is None:
        raise ModelError(f"teacher.model: the tokenizer of {loaded.source} has no padding token")
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"teacher.model: the tokenizer of {loaded.source} has {len(tokenizer)} pieces, "
            f"the model {config.vocab_size}"
        )
    if run.config.task.source_language is not None and not mark_languages(run, tokenizer):
        raise ModelError(
            f"task.source_language: {loaded.source} marks no languages; leave it and `target_language` out"
        )
    _positions(run, config, loaded.source, learned(loaded.model))
    weights = loaded.model.num_parameters()
    found.add_row(
        "teacher",
        f"{loaded.source}: {config.model_type}, {shape_of(loaded.model, trained_head=False).describe()}, "
        f"{weights / 1e6:.1f} M, {str(loaded.model.dtype).removeprefix('torch.')}"
        + (f", layers in {run.quantised.bits}" if run.quantised else ""),
    )


def _positions(run: Run, config: PretrainedConfig, who: str, before: Learned = _NOTHING) -> None:
    """Check that a model has positions for rows of the longest kind, behind what its adapter puts `before` them."""
    task, beside = run.config.task, config.is_encoder_decoder
    read, written = (before.tokens, before.keys) if beside else (before.tokens + before.keys, 0)
    lengths = {"max_length": (task.max_length, read, positions(config))}
    if task.kind == "generation":
        lengths["max_target_length"] = (task.max_target_length, written, positions(config, "decoder"))
    for name, (length, more, room) in lengths.items():
        if length + more > room:
            also = f", with the {more} tokens of its adapter," if more else ""
            raise ModelError(f"task.{name}: {length}{also} is more than the {room} positions of {who}")


def _own_words(run: Run) -> None:
    """Check the student's own vocabulary; it is learnt here, unless a stage has to write some of its texts first."""
    _positions(run, run.student_words.config, "the student")
    sources = (run.config.data[name] for name in learnt_by_students(run.config))
    if not any(isinstance(source, StageData) for source in sources):
        run.student_words.make()


def _adapter(run: Run) -> None:
    """Refuse to train a teacher that is an adapter: whoever trains it decides whether its model is trained too."""
    if run.teacher_stage is not None and adapters.is_adapter(run.base.folder):
        raise ModelError(
            f"stages.{run.teacher_stage}.trains: {run.base.path} is an adapter, which teaches as it is; merge it first "
            "to train it further"
        )


def _new_head(run: Run) -> None:
    """Warn where the stage that trains the teacher leaves the head behind that it came with."""
    if run.teacher_stage is None:
        return
    task, config = run.config.task, load_config(run.base, "teacher.model")
    if has_head(config, task) and heads.unnamed(config, task, run.labels):
        run.screen.warning(
            f"teacher.model: the outputs of {run.base.path} are called {', '.join(label_names(config))}, which tells "
            f"nothing of what they mean; stages.{run.teacher_stage} trains a new head. To go on with its own, write "
            "the names of the classes into `id2label` of its config.json"
        )


def _stages(run: Run, loaded: Loaded | None, found: Table) -> None:
    """Pair teacher and student of every train stage; models that are still to be trained are stood in for."""
    last = None
    for name, stage in run.config.stages.items():
        if not isinstance(stage, TrainStage):
            continue
        if stage.trains == "teacher":
            strategy_of(run, name, stage, None, None)
        else:
            last = _student(run, loaded)
            config = adapted_model.transformer(last.model).config
            _positions(run, config, "the student", learned(last.model))
            last.keep(stage.training.freeze, f"stages.{name}.training.freeze")
            objective = _objective(run, name, stage, last, loaded)
            strategy_of(run, name, stage, last, objective)
            pairs = "; ".join(f"{row.name} {row.layers}" for row in objective.describe() if row.layers)
            found.add_row(f"stages.{name}", pairs or ", ".join(objective.units))
    if last is not None:
        check_student(run, last)
        weights = sum(parameter.numel() for parameter in last.parameters())
        found.add_row("student", f"{last.shape.describe()}, {weights / 1e6:.1f} M")


def _disks(run: Run) -> None:
    """Have ready what trainings need that keep weights on a disk."""
    machine, stages = run.config.machine, run.config.stages.values()
    chosen = {stage.training.strategy or machine.strategy for stage in stages if isinstance(stage, TrainStage)}
    if machine.deepspeed.nvme is None or "deepspeed_3" not in chosen:
        return
    if not os.access(machine.deepspeed.nvme, os.W_OK | os.X_OK):
        raise ModelError(f"machine.deepspeed.nvme: {machine.deepspeed.nvme} is no folder that can be written to")
    build_for_disks(run.screen.warning)


def _student(run: Run, loaded: Loaded | None) -> Student:
    given = (run.config.student, run.config.task, run.labels)
    if loaded is None or run.student_is_alone:
        return build_alone(*given, run.student_words.config, run.config.seed)
    return build_student(*given, loaded, run.config.seed)


def _objective(run: Run, name: str, stage: TrainStage, student: Student, loaded: Loaded | None) -> Objective:
    return build_objective(
        stage.objective,
        student=student.shape,
        student_offers=student.offers,
        teacher=_stand_in(run, name, stage, loaded, student),
        task=run.config.task,
        where=f"stages.{name}",
        allow_code=run.allow_code,
    )


def _stand_in(run: Run, name: str, stage: TrainStage, loaded: Loaded | None, student: Student) -> Teacher:
    if loaded is None or stage.teacher == "none":
        return NoTeacher()
    if stage.adapters:
        own = stage.teacher == "student"
        base = student_base(run, student, f"stages.{name}") if own else loaded
        return cut_down(adapter_teacher(run, name, stage, base, borrowed=own), stage)
    if stage.teacher == "student":
        return cut_down(own_teacher(student, "", "student.adapter"), stage)
    will_be_trained = stage.teacher == "task" and run.teacher_stage is not None
    head = replace(loaded, trained_head=loaded.trained_head or will_be_trained)
    live = LiveTeacher(head, run.config.task, "", run.label_order(loaded))
    if stage.cache is None or live.shape is None:
        return cut_down(live, stage)
    record = run.config.stages[stage.cache]
    outputs = kept(run, record) if isinstance(record, RecordStage) else None
    return CachedTeacher(replace(live.shape, kept=outputs), "", None, stage.cache)


def _teacher_score(run: Run, loaded: Loaded, found: Table) -> None:
    """Try a teacher that is used as it is on some validation rows: a teacher near chance teaches nothing."""
    name = next((s.validation for s in run.config.stages.values() if isinstance(s, TrainStage) and s.validation), None)
    if run.teacher_stage is not None or not loaded.trained_head or name is None or run.teacher_is_sharded:
        return
    table = run.table((name,), "teacher")
    scores = score_table(run, loaded.model, table, run.label_order(loaded), at_most=SAMPLE, side="teacher")
    shown = ", ".join(f"{metric} {value:.3f}" for metric, value in scores.items())
    found.add_row("teacher's score", f"{shown} on {min(SAMPLE, len(table))} rows of {name}")
