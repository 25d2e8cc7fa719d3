"""What all stages of a run share: configuration, folder, device, rows, teacher, labels."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from configs.data import Embedded, Files, Held, StageData
from configs.pipeline import Pipeline
from configs.stages import TrainStage
from configs.students import FolderStudent, SizedStudent
from configs.teachers import AbsentTeacher, FreshTeacher, ShardedTeacher, bits_of
from configs.teachers import LiveTeacher as GivenTeacher
from distill import heads
from distill.data.labels import label_names, permutation
from distill.data.rows import Rows
from distill.data.sources import read
from distill.data.table import TokenTable
from distill.errors import ModelError
from distill.files import digest
from distill.models import Loaded, ModelSource, fingerprint, load
from distill.models import label_names as model_labels
from distill.protocols import Teacher
from distill.quantised import Quantised
from distill.shells import shell
from pipelines.machine import Device, quiet
from pipelines.place import own_device
from pipelines.ranks import Ranks
from pipelines.score import EncodedRows
from pipelines.screen import Screen
from pipelines.source_files import files_of
from pipelines.stage import results_of
from pipelines.token_rows import rows_of_task, running_text
from pipelines.words import OWN, Words, learnt_by_students, learnt_from_files, of_model, own_words
from students.adapters.register import register
from teachers import fresh

Side = Literal["teacher", "student"]


class Run:
    """The shared context; everything in it is read once, when first asked for."""

    def __init__(
        self,
        config: Pipeline,
        device: Device,
        console: Console,
        *,
        allow_code: bool = False,
        cache: Path | None = None,
    ) -> None:
        """Take a checked configuration and the machine it runs on; what can be made again lies in `cache`."""
        self.config = config
        self.device = device
        self.console = console
        self.screen = Screen(console)
        self.allow_code = allow_code
        self.folder = config.output
        self.cache = cache or config.output / "cache"
        self.planned: dict[str, int] = {}
        """Bytes that each train stage is to need of a device, once they were planned."""
        self.ranks = Ranks(self.folder, config.machine.timeout)
        self.held: dict[str, Teacher] = {}
        """Teachers that stay between stages: to deal one out again takes as long as the first time."""
        self._rows: dict[str, Rows] = {}
        self._tables: dict[tuple[str, ...], TokenTable] = {}
        quiet()
        register()  # folders of our own adapters are read like any

    def under(self, config: Pipeline) -> "Run":
        """Return the run with another teacher, training or machine; rows, vocabularies and labels are those it has."""
        found = copy(self)
        found.config, found.device = config, replace(self.device, teachers=config.machine.teachers)
        return found

    # models

    @cached_property
    def base(self) -> ModelSource:
        """The teacher model as given, or as made from nothing."""
        match self.config.teacher:
            case GivenTeacher() | ShardedTeacher() as teacher:
                return ModelSource(teacher.model, teacher.revision)
            case FreshTeacher() as teacher:
                texts = partial(self._texts, learnt_from_files(self.config))
                made = fresh.make(teacher, self.config.task, texts, self.config.seed, self.cache / "teacher")
                return ModelSource(str(made))
            case AbsentTeacher():
                raise ModelError("teacher.kind: none: there is no teacher model")

    def teacher_source(self, kind: str) -> ModelSource:
        """Where the teacher of a stage lies: as given (`base`), or as fine-tuned in this run (`task`), if it is.

        Raise ModelError where it is still to be trained.
        """
        trained = self.teacher_stage if kind == "task" else None
        if trained is None:
            return self.base
        folder = self.stage_folder(trained, None) / "model"
        if not folder.is_dir():
            raise ModelError(f"stages.{trained}: the teacher is not trained yet; `distill train` does it")
        return ModelSource(str(folder))

    @cached_property
    def teacher_stage(self) -> str | None:
        """Name of the stage that fine-tunes the teacher, if there is one."""
        stages = self.config.stages.items()
        found = (name for name, stage in stages if isinstance(stage, TrainStage) and stage.trains == "teacher")
        return next(found, None)

    def load_teacher(self, kind: str) -> Loaded:
        """Load the teacher model of a stage; of one that is sharded, all but its weights."""
        take = shell if self.teacher_is_sharded else partial(load, quantised=self.quantised)
        return self.to_train(
            take(self.teacher_source(kind), self.config.task, self.labels, "teacher.model", self.dtype)
        )

    @property
    def quantised(self) -> Quantised | None:
        """How the teacher's weights are held in fewer bits, if they are."""
        bits = bits_of(self.config.teacher)
        return None if bits is None else Quantised(bits, own_device(self.device.torch_name))

    def fresh_teacher(self) -> Loaded:
        """Load the teacher model with a head for the task, in fp32, to fine-tune it."""
        return self.to_train(load(self.base, self.config.task, self.labels, "teacher.model"))

    def to_train(self, loaded: Loaded) -> Loaded:
        """Give the teacher model the head that it is fine-tuned with, in a run that has a stage for it. Raise DataError
        where its own is for other classes.
        """
        if self.teacher_stage is None:
            return loaded
        return heads.to_train(loaded, self.config.task, self.labels, f"teacher.model: {loaded.source}")

    def label_order(self, loaded: Loaded) -> list[int] | None:
        """Return the teacher's output for each class of the run, matched by name; none where they agree."""
        if not self.config.task.has_classes or not loaded.trained_head:
            return None
        return permutation(model_labels(loaded.model.config), self.labels, f"teacher.model: {loaded.source}")

    @property
    def dtype(self) -> torch.dtype:
        """The type the teacher's weights are held in."""
        return getattr(torch, getattr(self.config.teacher, "dtype", "float32"))  # type: ignore[no-any-return]

    @cached_property
    def teacher_words(self) -> Words:
        """The teacher's vocabulary."""
        return of_model(self.base, self.config.task, "teacher.model")

    @cached_property
    def student_words(self) -> Words:
        """The student's vocabulary: the teacher's, unless it has one of its own."""
        student, teacher = self.config.student, self.config.teacher
        absent = isinstance(teacher, AbsentTeacher)
        if isinstance(student, FolderStudent) and absent:
            return of_model(ModelSource(student.model, student.revision), self.config.task, "student.model")
        if not isinstance(student, SizedStudent) or student.vocabulary is None:
            return self.teacher_words
        kind = student.architecture or ("marian" if absent else self.teacher_words.config.model_type)
        texts = partial(self._texts, learnt_by_students(self.config))
        return own_words(student, kind, student.vocabulary, texts, self._vocabulary_folder)

    @property
    def student_is_alone(self) -> bool:
        """Whether the student takes nothing from a teacher, not even its vocabulary."""
        return not self.has_teacher or self.student_words.where == OWN

    def words(self, side: Side) -> Words:
        """Return the vocabulary of a side."""
        return self.teacher_words if side == "teacher" else self.student_words

    def words_fingerprint(self) -> str:
        """Return a digest of what decides the student's vocabulary where it is its own; empty where it is not."""
        return self._vocabulary_folder().name if self.student_words.where == OWN else ""

    def _vocabulary_folder(self) -> Path:
        size = str(self.student_words.config.vocab_size)
        return self.cache / "student" / digest(size, *map(self.source_fingerprint, learnt_by_students(self.config)))

    # rows

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the outputs; empty where outputs are no classes."""
        task = self.config.task
        if not task.has_classes:
            return ()
        if task.labels is not None:
            return task.labels
        labelled = [name for name, source in self.config.data.items() if _may_have_labels(source)]
        return label_names(task, [self.rows(name) for name in labelled])

    def rows(self, name: str) -> Rows:
        """Return the rows of a source."""
        if name not in self._rows:
            folders = {stage: self.stage_folder(stage, None) for stage in self.config.stages}
            config = self.config
            self._rows[name] = read(name, config.data, config.task, stage_outputs=folders, seed=config.seed)
        return self._rows[name]

    def table(self, names: Sequence[str], side: Side = "student") -> TokenTable:
        """Return the tokens of sources, one after the other, in the vocabulary of a side; plain text is packed to the
        full length.
        """
        words = self.words(side)
        key = (words.where, *names)
        if key not in self._tables:
            self._tables[key] = TokenTable.concatenate([self._tokens(name, words) for name in names])
        return self._tables[key]

    def _tokens(self, name: str, words: Words) -> TokenTable:
        rows, task, folder = self.rows(name), self.config.task, self.cache / "tokens"
        if self._is_plain_text(name):
            table = running_text(rows, task, words, folder)
        else:
            table = rows_of_task(rows, task, self.labels, words, folder)
        return replace(table, notes={**rows.notes, **table.notes})

    def _texts(self, names: Sequence[str]) -> Iterator[str]:
        """Return all texts of sources."""
        return (text for name in names for text in self.rows(name).texts())

    def _is_plain_text(self, name: str) -> bool:
        """Whether a source is running text, to be packed."""
        source = self.config.data[name]
        return self.config.task.is_plain_text or (isinstance(source, Files) and source.pack)

    def scored_rows(self, name: str) -> EncodedRows:
        """Return the rows of a source ready to be scored and timed."""
        table = self.table((name,))
        return EncodedRows.of(table, self.student_words.tokenizer.pad_token_id, ranked=self.config.task.ranks)

    # places and digests

    def seeds_of(self, name: str) -> list[int | None]:
        """Return the seeds a stage runs under; [None] where all repeats share it."""
        if self._is_shared(name):
            return [None]
        return [self.config.seed + number for number in range(self.config.repeats)]

    def stage_folder(self, name: str, seed: int | None) -> Path:
        """Return the folder of a stage; a stage that all repeats share lies beside the seeds, and where it asks for
        one that they do not share, it means the first seed's.
        """
        number = self.config.seed if seed is None else seed
        return self.folder / name if self._is_shared(name) else self.folder / f"seed-{number}" / name

    def _is_shared(self, name: str) -> bool:
        stage = self.config.stages[name]
        return not isinstance(stage, TrainStage) or stage.once or stage.trains == "teacher"

    def stage_fingerprint(self, name: str, seed: int | None) -> str:
        """Return the fingerprint a finished stage was marked with. Raise ModelError where it is not finished."""
        return str(results_of(self.stage_folder(name, seed))["fingerprint"])

    def teacher_fingerprint(self, kind: str) -> str:
        """Return the digest of a teacher as it teaches: its model's files, and the type its weights are held in; empty
        where there is none.
        """
        found = fingerprint(self.teacher_source(kind)) if self.has_teacher else ""
        held: list[str] = [] if self.quantised is None else [self.quantised.bits]
        held += [] if self.dtype == torch.float32 else [str(self.dtype)]
        return digest(found, *held) if held else found

    @property
    def teacher_is_sharded(self) -> bool:
        """Whether no process holds the teacher whole."""
        return isinstance(self.config.teacher, ShardedTeacher)

    @property
    def has_teacher(self) -> bool:
        """Whether there is a teacher model."""
        return not isinstance(self.config.teacher, AbsentTeacher)

    def source_fingerprint(self, name: str) -> str:
        """Return a digest of what a source holds: its section, and its files where they are local."""
        source = self.config.data[name]
        section = source.model_dump_json()
        match source:
            case Held():
                return digest(section, self.source_fingerprint(source.of), str(self.config.seed))
            case StageData():
                return digest(section, self.stage_fingerprint(source.stage, None))
            case Embedded():
                return digest(section)
            case Files():
                return digest(section, *files_of(source).values())


def _may_have_labels(source: object) -> bool:
    return not (isinstance(source, Files) and source.columns.label is None) and not isinstance(source, StageData)
