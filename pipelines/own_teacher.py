"""Make a teacher of the frozen model inside a student's adapter."""

from dataclasses import replace

from peft import PeftModel

from distill.errors import ModelError
from distill.frozen_model import changes_frozen_weights
from distill.types import Needs
from students.student import Student
from teachers.own import OwnTeacher


def own_teacher(student: Student, fingerprint: str, where: str) -> OwnTeacher:
    """Let a student learn from its own frozen model. Raise ModelError where that is not what it was."""
    frozen_in(student, where)
    shape = student.shape if student.frozen_head else replace(student.shape, outputs=0)
    return OwnTeacher(student, shape, student.offers - Needs(logits=not student.frozen_head), fingerprint)


def frozen_in(student: Student, where: str) -> PeftModel:
    """Return a student that is a frozen model in an adapter. Raise ModelError for another, and where the adapter has
    changed what is frozen.
    """
    model = student.model
    if not isinstance(model, PeftModel):
        raise ModelError(
            f"{where}.teacher: `student` is the frozen model in an adapter, and student.adapter names none"
        )
    if changes_frozen_weights(model.active_peft_config):
        raise ModelError(
            f"{where}.teacher: student.adapter changes the frozen weights (by its init or bias): "
            "they are no teacher any more"
        )
    return model
