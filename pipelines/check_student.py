"""What stages behind a student's training need of it, tried before it is trained."""

from pathlib import Path

from configs.adapters import Peft
from configs.checks import WHOLE
from configs.stages import EvaluateStage, ExportStage
from distill import adapted_model, adapters, merging
from distill.errors import ModelError
from pipelines.run import Run
from students.build import adapter_of
from students.student import Student
from teachers.text.build import inconvertible


def check_student(run: Run, student: Student) -> None:
    """Try what stages put under the student's adapter, and what they make of the student. Raise ModelError where that
    cannot be. The student is used up.
    """
    _merged(run, student)
    _swapped(run, student)
    _converted(run, student)


def _merged(run: Run, student: Student) -> None:
    """Try whether the weights can take in an adapter of a method by name: only the library knows, for the model."""
    if not isinstance(adapter_of(run.config.student), Peft):
        return
    for name, stage in run.config.stages.items():
        whole = [form for form in stage.formats if form in WHOLE] if isinstance(stage, ExportStage) else []
        if whole:
            where = f"stages.{name}.formats"
            try:
                merging.plain(student.model, where)
            except ModelError as error:
                raise ModelError(
                    f"{where}: `{whole[0]}` is the whole model, whose weights cannot take in the student's adapter "
                    f"({str(error).removeprefix(f'{where}: ')}); Choices: adapter, onnx, onnx_int8"
                ) from error


def _swapped(run: Run, student: Student) -> None:
    """Try the adapters that stages put under the student's own."""
    for name, stage in run.config.stages.items():
        if isinstance(stage, EvaluateStage) and stage.below not in (None, adapters.NONE):
            where, folder = f"stages.{name}.below", Path(stage.below).expanduser()
            for number, path in enumerate(adapters.stack(folder, where)):
                adapters.add(student.model, path, f"under_{name}_{number}", where, head=False)


def _converted(run: Run, student: Student) -> None:
    """Check that CTranslate2 has the student where it is exported for it."""
    config = adapted_model.transformer(student.model).config
    for name, stage in run.config.stages.items():
        asked = isinstance(stage, ExportStage) and any(form.startswith("ctranslate2") for form in stage.formats)
        if asked and (reason := inconvertible(config)):
            raise ModelError(f"stages.{name}.formats: {reason}")
