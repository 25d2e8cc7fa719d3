"""Make a teacher of the frozen model inside a student's adapter."""

from dataclasses import replace

from peft import PeftModel

from distill.errors import ModelError
from distill.types import Needs
from students.student import Student
from teachers.own import OwnTeacher


def own_teacher(student: Student, fingerprint: str, where: str) -> OwnTeacher:
    """Let a student learn from its own frozen model. Raise ModelError where that is not what it was."""
    model = student.model
    if not isinstance(model, PeftModel):
        raise ModelError(
            f"{where}.teacher: `student` is the frozen model in an adapter, and student.adapter names none"
        )
    if getattr(model.active_peft_config, "init_lora_weights", None) in ("pissa", "olora"):
        raise ModelError(
            f"{where}.teacher: student.adapter.init changes the frozen weights: they are no teacher any more"
        )
    shape = student.shape if student.frozen_head else replace(student.shape, outputs=0)
    return OwnTeacher(student, shape, student.offers - Needs(logits=not student.frozen_head), fingerprint)
