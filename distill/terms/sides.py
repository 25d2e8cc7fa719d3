"""What terms are made for, and a choice that goes with few others."""

from dataclasses import dataclass

from configs.data import TaskKind
from configs.errors import ConfigError
from distill.types import Shape


@dataclass(frozen=True)
class Sides:
    """What a term is made for."""

    student: Shape
    teacher: Shape | None
    """None where the stage has no teacher."""
    task: TaskKind
    allow_code: bool = False


def huawei_is_for(choice: str, fits: bool, where: str) -> None:
    """Raise ConfigError where TinyBERT's own reduction does not fit the rest of a term."""
    if not fits:
        raise ConfigError([f"{where}: `reduction: huawei` is TinyBERT's released loss and goes with `{choice}` only"])
