"""Make teachers of adapters in one frozen model: the run's teacher, or the one inside a student's adapter."""

import torch

from configs.stages import TrainStage
from distill.data.labels import permutation
from distill.errors import ModelError
from distill.files import digest
from distill.frozen_model import in_adapter, twin
from distill.models import Loaded, ModelSource, fingerprint, label_names
from pipelines.own_teacher import frozen_in
from pipelines.run import Run
from students.student import Student
from teachers.adapters import AdapterTeacher, Member


def adapter_teacher(
    run: Run, name: str, stage: TrainStage, base: Loaded, autocast: torch.dtype | None = None, *, borrowed: bool = False
) -> AdapterTeacher:
    """Put the adapters of a stage into a loaded model, whose weights they share; `borrowed` ones are a student's.
    `autocast` is the type that the training computes products in, if not the weights' own.

    Raise UserError for an adapter that does not belong into this model, or has learnt other classes.
    """
    members: dict[str, Member] = {}
    for source, folder in stage.adapters.items():
        if folder not in members:
            members[folder] = _member(run, base, folder, f"stages.{name}.adapters.{source}")
    teach = [stage.adapters[source] for source in stage.data]
    known = digest(run.teacher_fingerprint("base"), *adapter_fingerprints(stage))
    return AdapterTeacher(members, teach, run.config.task, known, autocast=autocast, borrowed=borrowed)


def student_base(run: Run, student: Student, where: str) -> Loaded:
    """Return the frozen model inside a student's adapter. Raise ModelError where it is not what it was."""
    model = twin(frozen_in(student, where), where)
    if any(weight.requires_grad for weight in model.parameters()):
        raise ModelError(f"{where}.teacher: student.adapter trains weights of the frozen model: they are no teacher")
    body = "" if model.base_model is model else f"{model.base_model_prefix}."
    head = tuple(name for name, _ in model.named_parameters() if not name.startswith(body))
    drawn = () if student.frozen_head else head
    return Loaded(model, run.words("teacher").tokenizer, model.name_or_path or "", student.frozen_head, drawn)


def adapter_fingerprints(stage: TrainStage) -> list[str]:
    """Return digests of the adapters that teach in a stage."""
    return [fingerprint(ModelSource(folder)) for folder in stage.adapters.values()]


def _member(run: Run, base: Loaded, folder: str, where: str) -> Member:
    task = run.config.task
    made = in_adapter(base, folder, task, run.labels, where)
    named = task.has_classes and made.trained_head
    return Member(made, permutation(label_names(made.model.config), run.labels, where) if named else None)
