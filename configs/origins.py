"""Where a value was written, and what is wrong with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from configs.errors import suggest

Path = tuple[str, ...]
"""Keys from the top of the configuration down; items of lists by their position, from 0."""


def dotted(path: Path) -> str:
    """Return the path as users write it: `stages.prediction.objective.1.weight`."""
    return ".".join(path)


@dataclass(frozen=True, slots=True)
class Origin:
    """The line of a file, the override, or the default that a value comes from."""

    kind: Literal["file", "override", "default"]
    text: str = ""
    """The file's name, or the override as typed."""
    line: int = 0
    """Line of the file, from 1; 0 is the file as a whole."""

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.text}:{self.line}" if self.line else self.text
        return f"override: {self.text}" if self.kind == "override" else "default"


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend: `<where>: <path>: <what is wrong>`."""

    origin: Origin
    path: Path
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.origin), dotted(self.path), self.what) if part)

    @property
    def rank(self) -> tuple[bool, str, int]:
        """Return the key that lists problems by file and line, those of overrides last."""
        in_file = self.origin.kind == "file"
        return (not in_file, self.origin.text if in_file else "", self.origin.line)


class Fault(Exception):
    """Carry one problem out of a place where reading cannot go on."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def hint(word: str, choices: Iterable[str]) -> str:
    """Return `suggest`'s near match and choices, or say that no choice fits."""
    listed = list(choices)
    return suggest(word, listed) if listed else "; none fits"
