"""Build the student a configuration asks for."""

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from configs.data import Task
from configs.students import FolderStudent, LayersStudent, SizedStudent
from distill.errors import ModelError
from distill.models import Loaded, ModelSource, label_names, load, load_tokenizer
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
            return from_config.build(config, task, labels, teacher.model.config, seed)
        case LayersStudent():
            return from_teacher.build(config, task, teacher)
        case FolderStudent():
            return from_folder(ModelSource(config.model, config.revision), task, labels, teacher.tokenizer)


def build_alone(
    config: SizedStudent | LayersStudent | FolderStudent,
    task: Task,
    labels: tuple[str, ...],
    like: PretrainedConfig,
    seed: int,
) -> Student:
    """Build a student that takes nothing from a teacher; sizes become a model with the vocabulary of the configuration
    `like`. Raise ModelError for one that keeps a teacher's layers.
    """
    match config:
        case SizedStudent():
            return from_config.build(config, task, labels, like, seed)
        case FolderStudent():
            source = ModelSource(config.model, config.revision)
            return from_folder(source, task, labels, load_tokenizer(source, "student.model"))
        case LayersStudent():
            raise ModelError("student.kind: teacher_layers needs a teacher; Choices: folder, sizes")


def from_folder(source: ModelSource, task: Task, labels: tuple[str, ...], words: PreTrainedTokenizerBase) -> Student:
    """Load a student. Raise ModelError if its vocabulary or its labels are not the run's."""
    loaded = load(source, task, labels, "student.model")
    if loaded.tokenizer.get_vocab() != words.get_vocab():
        raise ModelError(
            f"student.model: {source.path} and {words.name_or_path} have different vocabularies "
            f"({len(loaded.tokenizer)} and {len(words)} pieces); the same ids must mean the same pieces"
        )
    if loaded.trained_head and task.kind == "classification" and label_names(loaded.model.config) != labels:
        raise ModelError(_other_labels(source, label_names(loaded.model.config), labels))
    return Student(loaded.model, has_head=task.kind != "text")


def _other_labels(source: ModelSource, own: tuple[str, ...], labels: tuple[str, ...]) -> str:
    return (
        f"student.model: {source.path} was trained for the labels {', '.join(own)}; the run has {', '.join(labels)}. "
        "Give `task.labels` in the student's order, or start from a model without a head"
    )
