"""Tables of finished runs that are kept: a run that is there already is taken out for its newer self."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.markdown import Markdown

from distill.files import write_json, write_text


@dataclass(frozen=True, kw_only=True)
class Row(ABC):
    """What a run says in a line."""

    run: str
    command: str
    machine: str
    code: str

    @abstractmethod
    def cells(self) -> list[str]:
        """Return the cells of a Markdown row."""


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Table(Generic[R]):
    """A table in Markdown, with its rows in JSON beside it."""

    title: str
    head: Sequence[str]
    kind: type[R]
    said: str
    """What is to be known of the numbers."""

    def write(self, found: Sequence[R], target: Path, console: Console) -> None:
        """Let runs take the place of older ones of their name, and print the table; without any do nothing.

        The others stay: each takes hours, and has its own code and machine written beside it.
        """
        if not found:
            return
        rows = [row for run in (_by_run(self._read(target)) | _by_run(found)).values() for row in run]
        cells = [[*self.head], ["---"] * len(self.head), *(row.cells() for row in rows)]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        commands = dict.fromkeys(f"- `{row.command}`: version {row.code}; {row.machine}" for row in rows)
        text = "\n".join([f"# {self.title}", "", *lines, "", self.said, "", *commands, ""])
        write_text(target.with_suffix(".md"), text)
        write_json(target.with_suffix(".json"), [vars(row) for row in rows])
        console.print(Markdown(text))

    def _read(self, target: Path) -> list[R]:
        path = target.with_suffix(".json")
        if not path.is_file():
            return []
        return [self.kind(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def where_from(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a run's record says about where its numbers come from."""
    return {
        "command": record["command"],
        "machine": f"{record['processor']}; {record['machine']}",
        "code": record["code"],
    }


def _by_run(rows: Iterable[R]) -> dict[str, list[R]]:
    found: dict[str, list[R]] = {}
    for row in rows:
        found.setdefault(row.run, []).append(row)
    return found
