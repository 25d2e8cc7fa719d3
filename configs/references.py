"""Names by which one section speaks of another: sources and stages that must be there, and come before their user."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from configs.adapters import Adapter
from configs.data import Held, Source, StageData, Task
from configs.origins import Path, hint
from configs.stages import AugmentStage, SelectStage, Stage, TrainStage
from configs.students import SizedStudent, Student
from configs.teachers import Teacher
from configs.training import Machine

Findings = Iterator[tuple[Path, str]]

WRITERS = (AugmentStage, SelectStage)
"""Stages whose rows others read."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a pipeline that refer to each other; None where a part is itself not valid yet."""

    task: Task | None
    data: Mapping[str, Source | None]
    stages: Mapping[str, Stage | None]
    teacher: Teacher | None = None
    student: Student | None = None
    machine: Machine | None = None

    @property
    def adapter(self) -> Adapter | None:
        """What the student learns through, if it is not all of it."""
        return None if self.student is None or isinstance(self.student, SizedStudent) else self.student.adapter


def held_chain(parts: Parts, name: str) -> list[str]:
    """Return the sources that `name` is held out of, itself first, up to the first one not held or seen before."""
    chain = [name]
    while isinstance(source := parts.data.get(chain[-1]), Held):
        chain.append(source.of)
        if source.of in chain[:-1]:
            break
    return chain


def check_source(parts: Parts, user: str, at: Path, name: str) -> Findings:
    """Check that a source exists, and that the stage that writes it, if one does, comes before its user."""
    path = ("stages", user, *at)
    if name not in parts.data:
        yield path, f"there is no source `{name}`{hint(name, parts.data)}"
        return
    source = parts.data.get(held_chain(parts, name)[-1])
    written = isinstance(source, StageData) and isinstance(parts.stages.get(source.stage), WRITERS)
    if isinstance(source, StageData) and written and source.stage not in stages_before(parts, user):
        yield path, f"source `{name}` is written by stage `{source.stage}`, which does not come before `{user}`"


def stages_before(parts: Parts, user: str) -> list[str]:
    """Return the names of the stages that come before one."""
    names = list(parts.stages)
    return names[: names.index(user)]


def check_stage(parts: Parts, user: str, key: str, name: str, fault: Callable[[Stage], str]) -> Findings:
    """Check that `name` is a stage before `user` in which `fault` finds none."""
    before, stage = stages_before(parts, user), parts.stages.get(name)
    fitting = [other for other in before if (known := parts.stages[other]) is not None and not fault(known)]
    if name not in parts.stages:
        what = f"there is no stage `{name}`"
    elif name not in before:
        what = f"stage `{name}` does not come before `{user}`"
    else:
        what = "" if stage is None or not fault(stage) else f"stage `{name}` {fault(stage)}"
    if what:
        yield ("stages", user, key), what + hint(name, [*fitting, "fresh"] if key == "start" else fitting)


def not_training(model: str) -> Callable[[Stage], str]:
    """Return what tells the fault of a stage that does not train a model: `student` or `teacher`."""

    def fault(stage: Stage) -> str:
        if not isinstance(stage, TrainStage):
            return f"is of kind `{stage.kind}` and trains nothing"
        return "" if stage.trains == model else f"trains the {stage.trains}, not the {model}"

    return fault
