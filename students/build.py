"""Build the student a configuration asks for."""

import copy
from dataclasses import replace
from typing import Protocol, cast

from peft import PeftModel
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from configs.adapters import AdaLora, Adapter, Bottleneck, Fusion, Lora, MixAndMatch, Prefix
from configs.data import Task
from configs.students import BaseStudent, FolderStudent, LayersStudent, SizedStudent
from distill.errors import ModelError
from distill.heads import in_order
from distill.models import Loaded, ModelSource, load, load_tokenizer
from students import from_config, from_teacher
from students.adapters.build import build as build_adapter
from students.adapters.ranks import RankSchedule
from students.student import Student


class Take(Protocol):
    """Brings a model out of a folder, with its weights (`load`) or without (`outline`)."""

    def __call__(
        self, source: ModelSource, task: Task, labels: tuple[str, ...], where: str, *, trainable: bool = False
    ) -> Loaded:
        """Raise ModelError on anything missing."""


def build(
    config: SizedStudent | LayersStudent | FolderStudent | BaseStudent,
    task: Task,
    labels: tuple[str, ...],
    teacher: Loaded,
    seed: int,
    take: Take = load,
) -> Student:
    """Build a student in fp32 that shares the teacher's vocabulary, its outputs in the order of the run's classes;
    `take` brings models out of folders. Raise UserError where the two do not fit.
    """
    match config:
        case SizedStudent():
            return from_config.build(config, task, labels, teacher.model.config, seed)
        case LayersStudent():
            model = from_teacher.build(config, teacher)
            return _student(_own(teacher, model, task, labels), config.adapter, task)
        case FolderStudent():
            source = ModelSource(config.model, config.revision)
            return _student(_from_folder(source, task, labels, teacher.tokenizer, take=take), config.adapter, task)
        case BaseStudent():
            return _student(_own(teacher, copy.deepcopy(teacher.model), task, labels), config.adapter, task)


def build_alone(
    config: SizedStudent | LayersStudent | FolderStudent | BaseStudent,
    task: Task,
    labels: tuple[str, ...],
    like: PretrainedConfig,
    seed: int,
    take: Take = load,
) -> Student:
    """Build a student that takes nothing from a teacher; sizes become a model with the vocabulary of the configuration
    `like`. Raise ModelError for one that is made of a teacher.
    """
    match config:
        case SizedStudent():
            return from_config.build(config, task, labels, like, seed)
        case FolderStudent():
            source = ModelSource(config.model, config.revision)
            words = load_tokenizer(source, "student.model")
            return _student(_from_folder(source, task, labels, words, take=take), config.adapter, task)
        case LayersStudent() | BaseStudent():
            raise ModelError(f"student.kind: {config.kind} needs a teacher; Choices: folder, sizes")


def from_folder(
    source: ModelSource,
    task: Task,
    labels: tuple[str, ...],
    words: PreTrainedTokenizerBase,
    adapter: Adapter | None = None,
) -> Student:
    """Load a student to go on with; an adapter as an adapter, which learns as its section says. Raise UserError if its
    vocabulary or its labels are not the run's.
    """
    loaded = _from_folder(source, task, labels, words, trainable=True)
    return _learning(loaded.model, adapter, task, frozen_head=loaded.frozen_head)


def _own(teacher: Loaded, model: PreTrainedModel, task: Task, labels: tuple[str, ...]) -> Loaded:
    """Return a student's own copy of the teacher, or of parts of it."""
    return in_order(replace(teacher, model=model), task, labels, f"teacher.model: {teacher.source}")


def _student(loaded: Loaded, adapter: Adapter | None, task: Task) -> Student:
    if adapter is None:
        return _learning(
            loaded.model.float(), None, task, frozen_head=False
        )  # small steps are lost in a teacher's bf16
    return _learning(build_adapter(adapter, loaded, task), adapter, task, frozen_head=loaded.trained_head)


def _learning(model: PreTrainedModel | PeftModel, adapter: Adapter | None, task: Task, *, frozen_head: bool) -> Student:
    has_head = task.kind != "text"
    rates = {"lora_B": adapter.b_rate} if isinstance(adapter, Lora) else {}
    ranks = RankSchedule(cast(PeftModel, model), adapter) if isinstance(adapter, AdaLora) else None
    return Student(model, has_head=has_head, rates=rates, frozen_head=has_head and frozen_head, ranks=ranks)


def _from_folder(
    source: ModelSource,
    task: Task,
    labels: tuple[str, ...],
    words: PreTrainedTokenizerBase,
    *,
    trainable: bool = False,
    take: Take = load,
) -> Loaded:
    loaded = take(source, task, labels, "student.model", trainable=trainable)
    if loaded.tokenizer.get_vocab() != words.get_vocab():
        raise ModelError(
            f"student.model: {source.path} and {words.name_or_path} have different vocabularies "
            f"({len(loaded.tokenizer)} and {len(words)} pieces); the same ids must mean the same pieces"
        )
    return in_order(loaded, task, labels, f"student.model: {source.path}")


def adapter_of(config: SizedStudent | LayersStudent | FolderStudent | BaseStudent) -> Adapter | None:
    """Return the section of the adapter a student learns through."""
    return None if isinstance(config, SizedStudent) else config.adapter


def sources_of(config: SizedStudent | LayersStudent | FolderStudent | BaseStudent) -> list[ModelSource]:
    """Return the models and adapters a student is made of, beside the run's teacher."""
    found = [ModelSource(config.model, config.revision)] if isinstance(config, FolderStudent) else []
    match adapter := adapter_of(config):
        case Fusion():
            return [*found, *map(ModelSource, adapter.of.values())]
        case Bottleneck() | MixAndMatch() | Prefix():
            return [*found, *map(ModelSource, adapter.on)]
        case _:
            return found
