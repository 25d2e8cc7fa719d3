"""Files with one word a line and its classes in columns: CoNLL-U, and the column files of shared tasks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from distill.data.readers import Item, Reading, read_lines
from distill.data.rows import BadRow
from distill.errors import DataError

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")

Line = tuple[int, list[str]]
"""Number of a line, and its fields; none where it is blank."""


def read_word_lines(path: Path, header: tuple[str, ...] | None) -> Reading:
    """Read one sentence a row: under each column's name, the list of what stands there.

    Fields are parted by tabs, or by blanks where the first word's line has no tab. `header` names the first columns;
    without it the first is `words` and the last `tags`. Where there is a column `id`, lines whose id is no whole number
    (CoNLL-U's spans of written words, and empty words) are left out. Comments are left out: lines that begin with `#`
    and have not the fields of a word.
    """
    lines = ((number, line.rstrip("\r\n")) for number, line in read_lines(path))
    first = next(((n, line) for n, line in lines if line.strip() and not line.startswith("#")), None)
    if first is None:
        raise DataError(f"{path}: no word in it")
    layout = _Layout("\t" if "\t" in first[1] else None, 0, header is not None and header[0] == "id")
    width = len(layout.fields(first[1]))
    names = header or tuple(_name(place, width) for place in range(width))
    if width < max(2, len(names)):
        raise DataError(f"{path}:{first[0]}: {width} fields; a word has {max(2, len(names))} at least")
    again = ((number, line.rstrip("\r\n")) for number, line in read_lines(path))
    return Reading(names, _sentences(_fields(again, replace(layout, width=width)), names))


@dataclass(frozen=True)
class _Layout:
    """How the lines of a file are written."""

    delimiter: str | None
    width: int
    numbered: bool
    """Whether every word's line begins with its number."""

    def fields(self, line: str) -> list[str]:
        """Part a line; a no-break space is part of a word."""
        return line.split(self.delimiter) if self.delimiter else _BLANKS.split(line.strip(" \t"))

    def is_comment(self, line: str) -> bool:
        """Whether a line that begins with # is no word: a word may be a # itself."""
        fields = self.fields(line)
        return self.numbered or (len(fields) < 2 if self.delimiter else len(fields) != self.width)


def _name(place: int, width: int) -> str:
    return "words" if place == 0 else "tags" if place == width - 1 else f"column_{place + 1}"


def _fields(lines: Iterator[tuple[int, str]], layout: _Layout) -> Iterator[Line]:
    """Yield the fields of words, and the blank lines between sentences."""
    for number, line in lines:
        if not line.strip() or line.startswith(_DOCUMENT):
            yield number, []
        elif not (line.startswith("#") and layout.is_comment(line)):
            yield number, layout.fields(line)


def _sentences(lines: Iterator[Line], names: tuple[str, ...]) -> Iterator[Item]:
    held: list[Line] = []
    for number, fields in chain(lines, [(0, [])]):
        if fields:
            held.append((number, fields))
        elif held:
            yield held[0][0], _sentence(held, names)
            held = []


def _sentence(lines: list[Line], names: tuple[str, ...]) -> dict[str, list[str]] | BadRow:
    """Return the columns of a sentence."""
    number = next((number for number, fields in lines if len(fields) < len(names)), None)
    if number is not None:
        return BadRow("too few or too many fields", f"line {number} has not the {len(names)} fields of a word")
    if "id" in names:
        place = names.index("id")
        lines = [line for line in lines if line[1][place].isdigit()]
    return {name: [fields[place] for _, fields in lines] for place, name in enumerate(names)}
