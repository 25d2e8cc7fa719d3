"""A whole run."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from configs.data import Source, Task
from configs.section import Section
from configs.stages import Stage
from configs.students import Student
from configs.teachers import Teacher
from configs.training import Machine

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class Pipeline(Section):
    """Everything a run may say."""

    about: str
    """What the run does, in a sentence."""
    expect: str
    """What it should score, and who measured that."""
    output: Path
    """Folder of the run: stages, checkpoints, logs, report."""
    seed: NonNegativeInt = 0
    """Decides shuffles, initial weights, dropout and splits."""
    repeats: PositiveInt = 1
    """How often the student's stages run, under the seeds seed, seed + 1, …"""
    task: Task = Task()
    teacher: Teacher
    student: Student
    data: dict[Name, Source]
    """The sources, by name."""
    stages: dict[Name, Stage]
    """The stages, in order, by name."""
    machine: Machine = Machine()
