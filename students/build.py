"""Build the student a configuration asks for."""

from configs.data import Task
from configs.students import FolderStudent, LayersStudent, SizedStudent
from distill.errors import ModelError
from distill.models import Loaded, ModelSource, label_names, load
from students import from_config, from_teacher
from students.student import Student


def build(
    config: SizedStudent | LayersStudent | FolderStudent,
    task: Task,
    labels: tuple[str, ...],
    teacher: Loaded,
    seed: int,
) -> Student:
    """Build a student in fp32 that shares the teacher's vocabulary. Raise UserError where the two do not fit."""
    match config:
        case SizedStudent():
            return from_config.build(config, task, labels, teacher, seed)
        case LayersStudent():
            return from_teacher.build(config, task, teacher)
        case FolderStudent():
            return from_folder(ModelSource(config.model, config.revision), task, labels, teacher)


def from_folder(source: ModelSource, task: Task, labels: tuple[str, ...], teacher: Loaded) -> Student:
    """Load a student. Raise ModelError if its vocabulary or its labels are not the run's."""
    loaded = load(source, task, labels, "student.model")
    if loaded.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise ModelError(
            f"student.model: {source.path} and the teacher {teacher.source} have different vocabularies "
            f"({len(loaded.tokenizer)} and {len(teacher.tokenizer)} pieces); the same ids must mean the same pieces"
        )
    if loaded.trained_head and task.kind == "classification" and label_names(loaded.model.config) != labels:
        raise ModelError(_other_labels(source, label_names(loaded.model.config), labels))
    return Student(loaded.model, has_head=task.kind != "text")


def _other_labels(source: ModelSource, own: tuple[str, ...], labels: tuple[str, ...]) -> str:
    return (
        f"student.model: {source.path} was trained for the labels {', '.join(own)}; the run has {', '.join(labels)}. "
        "Give `task.labels` in the student's order, or start from a model without a head"
    )
