"""A fresh student of given sizes."""

import torch
from transformers import PretrainedConfig

from configs.data import Task
from configs.students import SizedStudent
from distill.architecture import check_writes, make_config, vocabulary_of
from distill.errors import ModelError
from distill.models import auto_class, set_labels
from students.student import Student


def build(sizes: SizedStudent, task: Task, labels: tuple[str, ...], like: PretrainedConfig, seed: int) -> Student:
    """Build a student with the vocabulary of the model `like`, and random weights drawn from `seed`.

    Raise ModelError for an architecture, a size or an option that transformers does not know.
    """
    kind = sizes.architecture or like.model_type
    if task.kind == "generation":
        check_writes(kind, "student")
    config = make_config(sizes, kind, vocabulary_of(like, kind), "student")
    set_labels(config, task, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = auto_class(task, config).from_config(config)
        except ValueError as error:
            raise ModelError(f"student: {str(error).splitlines()[0]}") from error
    return Student(model, has_head=task.kind != "text")
