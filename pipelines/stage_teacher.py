"""The teacher of a train stage: what it is, and where it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from configs.stages import TrainStage
from distill.errors import Stopped
from distill.files import digest
from distill.models import Loaded
from distill.protocols import Teacher
from distill.strategies.precision import AUTOCAST
from pipelines.adapter_teacher import adapter_teacher, student_base
from pipelines.frozen_teacher import frozen_teacher
from pipelines.meeting import Meeting
from pipelines.own_teacher import own_teacher
from pipelines.place import here, own_device
from pipelines.run import Run
from pipelines.serve import Server
from students.student import Student
from teachers.cached import CachedTeacher
from teachers.most_likely import MostLikely
from teachers.none import NoTeacher
from teachers.record import TokenRecord, read_record
from teachers.remote import RemoteTeacher


class StageTeacher:
    """The teacher of a stage, on the devices that train or on others."""

    def __init__(self, run: Run, name: str, seed: int | None, config: TrainStage) -> None:
        """Take the run, and the name, the repeat and the section of a stage."""
        self._run = run
        self._name = name
        self._config = config
        self._autocast = AUTOCAST[run.device.precision(config.training.precision)]
        meeting = digest(name, str(seed), config.model_dump_json())
        self._meeting = Meeting(run.ranks, meeting, run.config.machine.timeout)

    @property
    def kind(self) -> str:
        """Which model it is: the `base`, or the one trained on the `task`."""
        config = self._config
        given = config.trains == "teacher" or config.teacher in ("none", "student")
        return "base" if given else config.teacher

    @property
    def is_apart(self) -> bool:
        """Whether it runs on devices that only teach."""
        return self._run.device.teachers > 0 and self._config.runs_teacher and not self._run.student_is_alone

    def load(self) -> Loaded | None:
        """Load its model; none for a student that takes nothing from one."""
        alone = self._config.trains == "student" and self._run.student_is_alone
        return None if alone else self._run.load_teacher(self.kind)

    def beside(self, loaded: Loaded | None, student: Student) -> Teacher:
        """Return what teaches a student on its device."""
        run, config = self._run, self._config
        if loaded is None or config.trains == "teacher" or config.teacher == "none":
            return NoTeacher()
        if config.teacher == "student":
            return cut_down(self._own(student), config)
        live = self._frozen(loaded)
        if self.is_apart:
            return RemoteTeacher(live, partial(self._meeting.dial, *self._pair()), run.config.machine.timeout)
        return live if config.cache is None else self._cached(live, config.cache)

    def teach(self) -> None:
        """Answer the processes that train, as one that only teaches, until they have left."""
        loaded, device = self.load(), torch.device(own_device(self._run.device.torch_name))
        assert loaded is not None
        teacher = self._frozen(loaded)
        teacher.to(device)
        rank, trainers, teachers = self._place()
        callers = list(range(rank - trainers, trainers, teachers))
        wires = self._meeting.welcome(rank, callers)
        Server(teacher, device, self._autocast, self._run.ranks).serve(wires)

    def _own(self, student: Student) -> Teacher:
        run, where = self._run, f"stages.{self._name}"
        if not self._config.adapters:
            return own_teacher(student, run.teacher_fingerprint("base"), where)
        base = student_base(run, student, where)
        return adapter_teacher(run, self._name, self._config, base, borrowed=True)

    def _frozen(self, loaded: Loaded) -> Teacher:
        run, config = self._run, self._config
        if config.adapters:
            teacher: Teacher = adapter_teacher(run, self._name, config, loaded, self._autocast)
        else:
            teacher = frozen_teacher(run, self.kind, loaded, self._autocast)
        return cut_down(teacher, config)

    def _pair(self) -> tuple[int, int]:
        """Return the rank that teaches this one, and its own."""
        rank, trainers, teachers = self._place()
        return trainers + rank % teachers, rank

    def _place(self) -> tuple[int, int, int]:
        """Return the number of this process, and how many train and teach."""
        place, device = here(), self._run.device
        assert place is not None
        return place.rank, device.trainers, device.teachers

    def _cached(self, live: Teacher, name: str) -> CachedTeacher:
        """Read what a stage recorded, and see that it holds every row."""
        run = self._run
        record = read_record(run.stage_folder(name, None))
        record.of(torch.from_numpy(run.table(self._config.data, "teacher").example_ids))
        shape = live.shape
        if shape is not None and isinstance(record, TokenRecord):
            shape = replace(shape, kept=record.indices.shape[-1])
        return CachedTeacher(shape, run.stage_fingerprint(name, None), record, name)


def cut_down(teacher: Teacher, config: TrainStage) -> Teacher:
    """Return a teacher of whose outputs no more are kept than a stage asks for."""
    return teacher if config.top_k is None else MostLikely(teacher, config.top_k)


@contextmanager
def asking(teacher: Teacher) -> Iterator[None]:
    """Take leave, after a training, of a process that teaches: in order, if the training ends or is stopped so."""
    try:
        yield
    except BaseException as error:
        if isinstance(teacher, RemoteTeacher):
            if isinstance(error, Stopped):
                teacher.leave(error.signal)
            teacher.hang_up()
        raise
    if isinstance(teacher, RemoteTeacher):
        teacher.leave()
