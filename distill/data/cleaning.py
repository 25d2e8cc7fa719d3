"""From records as a file holds them to clean rows: checked, normalised, counted."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from configs import template
from configs.data import Columns, Files, Task
from configs.errors import suggest
from distill.data.hashing import hash_text
from distill.data.labels import UNLABELLED, class_name, score
from distill.data.readers import LONGEST, Reading
from distill.data.rows import BadRow, Row, Rows
from distill.errors import DataError

SOURCES_ALONE = "for sources without targets set `columns.target: null`"
_CHUNK = 65_536
"""Rows held one by one before they are packed into columns, which take a tenth of the memory."""


class Collector:
    """Takes records one after the other; a bad row is an error or is dropped and counted, as the source says."""

    def __init__(self, source: Files, task: Task) -> None:
        """Take what the source says of its columns and bad rows, and what the task says of labels."""
        self._source = source
        self._task = task
        self._columns = _used(source, task)
        self._tagged = _is_tagged(source, task)
        self._rows: list[Row] = []
        self._packed: list[Rows] = []
        self._notes: Counter[str] = Counter()
        self._seen: dict[int, str] = {}
        self._label_type: tuple[str, str] | None = None

    def __len__(self) -> int:
        return len(self._rows) + sum(map(len, self._packed))

    def take(self, name: str, reading: Reading) -> None:
        """Take all records of a file. Raise DataError at a missing column, and at a bad row unless such are dropped."""
        self._check_columns(name, reading.columns)
        for number, values in reading.items:
            place = f"{name}{reading.unit}{number}"
            try:
                if isinstance(values, BadRow):
                    raise values
                for row in self._read(values, place):
                    self._add(row)
            except BadRow as problem:
                if self._source.bad_rows == "error":
                    raise DataError(f"{place}: {problem}") from None
                self._notes[f"rows dropped: {problem.kind}"] += 1
            except DataError as problem:
                raise DataError(f"{place}: {problem}") from None

    def rows(self, name: str) -> Rows:
        """Return the rows taken. Raise DataError where there are none."""
        if len(self) == 0:
            dropped = ", ".join(f"{count} {kind}" for kind, count in sorted(self._notes.items()))
            raise DataError(f"{name}: no rows" + (f" are left ({dropped})" if dropped else ": the file holds none"))
        rows = Rows.concatenate([*self._packed, Rows.of(self._rows)])
        return Rows(rows.table, dict(self._notes))

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == _CHUNK:
            self._packed.append(Rows.of(self._rows))
            self._rows = []

    def _read(self, values: Mapping[str, Any], place: str) -> list[Row]:
        """Return the rows a record makes: one, or one for each of a list of targets."""
        if self._tagged:
            return [self._sentence(values, place)]
        columns = self._columns
        text = self._text(values, columns.text)
        pair = None if columns.pair is None else self._text(values, columns.pair)
        label = None if columns.label is None else self._label(values.get(columns.label), place)
        targets = [None] if columns.target is None else self._targets(values.get(columns.target), columns.target)
        given = None if columns.id is None else self._given_id(values, columns.id, place)
        key = hash_text(text, pair) if given is None else hash_text(text, pair, given)
        choices = None if columns.target is None else self._choices(values, columns.choices)
        if columns.choices is not None:
            key = hash_text(str(key), *(choices or ()))
        return [Row(text, pair, label, key, one, choices=_choosable(choices, one, targets)) for one in targets]

    def _sentence(self, values: Mapping[str, Any], place: str) -> Row:
        """Return a row of words with a class each."""
        columns = self._columns
        found, tags = values.get(columns.words), values.get(columns.tags)
        for column, given in ((columns.words, found), (columns.tags, tags)):
            if not isinstance(given, list):
                raise DataError(f"`{column}` is {given!r}, no list")
        if not found or len(found) != len(tags):  # type: ignore[arg-type]
            raise BadRow("not a class for each word", f"{len(found or [])} words and {len(tags or [])} classes")
        words = [self._text({columns.words: word}, columns.words) for word in found]
        names = [class_name(tag, self._task, self._source.label_names) for tag in tags]  # type: ignore[union-attr]
        given = None if columns.id is None else self._given_id(values, columns.id, place)
        key = hash_text(*words, None) if given is None else hash_text(*words, None, given)
        return Row(" ".join(words), None, None, key, words=words, tags=names)

    def _text(self, values: Mapping[str, Any], column: str) -> str:
        """Return the text of a column, or of several that a template names."""
        if not template.is_template(column):
            return self._column(values, column)
        return self._clean(template.fill(column, partial(self._part, values)), column)

    def _part(self, values: Mapping[str, Any], column: str, optional: bool) -> str:
        found = values.get(column)
        blank = found is None or found == [] or (isinstance(found, str) and not found.strip())
        return "" if optional and blank else self._column(values, column)

    def _column(self, values: Mapping[str, Any], column: str) -> str:
        """Return the text of a column; a list of sentences is joined by spaces, without the blank ones."""
        found = values.get(column)
        if not isinstance(found, list):
            return self._clean(found, column)
        filled = (one for one in found if not isinstance(one, str) or one.strip())
        return self._clean(" ".join(self._clean(sentence, column) for sentence in filled), column)

    def _targets(self, found: Any, column: str) -> Sequence[str]:
        """Return the targets of a record: a text, or each of a list of them; fixed answers may stand there as codes."""
        listed = found if isinstance(found, list) else [found]
        if not listed:
            raise BadRow("empty text", f"`{column}` is an empty list")
        names = self._source.label_names if self._task.choices is not None else {}
        return [self._clean(names.get(str(target), target), column) for target in listed]

    def _choices(self, values: Mapping[str, Any], column: str | None) -> list[str] | None:
        """Return the answers to choose from, each once: those of the record, or of the task."""
        if column is None:
            return None if self._task.choices is None else list(self._task.choices)
        found = values.get(column)
        if not isinstance(found, list):
            raise DataError(f"`{column}` is {found!r}, no list of answers")
        choices = list(dict.fromkeys(self._clean(answer, column) for answer in found))
        if len(choices) < 2:
            raise BadRow("nothing to choose from", f"`{column}` holds fewer than two answers")
        return choices

    def _clean(self, found: object, column: str) -> str:
        """Return a text in normal form C, without NULs and outer white space."""
        if found is None or found == "":
            raise BadRow("empty text", f"`{column}` is empty")
        if not isinstance(found, str):
            raise DataError(f"`{column}` is {found!r}, no text")
        text = found
        if "\0" in text:
            self._notes["NUL characters removed"] += text.count("\0")
            text = text.replace("\0", "")
        text = text.strip()
        if not text.isascii():
            text = _normal(text, column)
        if not text:
            raise BadRow("empty text", f"`{column}` is empty")
        if len(text) > LONGEST:
            raise BadRow("too long", f"`{column}` has {len(text):,} characters, more than {LONGEST:,}")
        return text

    def _label(self, raw: Any, place: str) -> str | float:
        if self._task.kind == "regression":
            return score(raw)
        name = class_name(raw, self._task, self._source.label_names)
        kind = type(raw).__name__
        if self._label_type is None:
            self._label_type = (kind, place)
        first, where = self._label_type
        if kind != first:
            raise DataError(
                f"label {raw!r} is of type {kind}, the one at {where} of type {first}; a column holds one type"
            )
        return name

    def _given_id(self, values: Mapping[str, Any], column: str, place: str) -> str:
        given = values.get(column)
        if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
            raise DataError(f"id {given!r} in `{column}` is neither a text nor a whole number")
        before = self._seen.setdefault(hash_text(str(given)), place)
        if before != place:
            raise DataError(f"id `{given}` is that of {before} too")
        return str(given)

    def _check_columns(self, name: str, found: tuple[str, ...]) -> None:
        columns = self._columns
        for wanted in wanted_columns(self._source, self._task):
            if wanted not in found:
                hints = {columns.label: f"; {UNLABELLED}", columns.target: f"; {SOURCES_ALONE}"}
                hint = hints.get(wanted, "")
                listed = ", ".join(found)
                near = suggest(wanted, found).split(" Choices: ")[0].rstrip(";")
                raise DataError(f"column `{wanted}` not in {name}; columns: {listed}{near}{hint}")


def wanted_columns(source: Files, task: Task) -> tuple[str, ...]:
    """Return the columns a source has to have."""
    columns = _used(source, task)
    text = (columns.words, columns.tags) if _is_tagged(source, task) else texts_of(columns)
    named = (*text, columns.label, columns.target, columns.choices, columns.id)
    return tuple(name for name in named if name is not None)


def texts_of(columns: Columns) -> tuple[str, ...]:
    """Return the columns that texts are made of."""
    return tuple(name for text in (columns.text, columns.pair) if text is not None for name in template.columns(text))


def _is_tagged(source: Files, task: Task) -> bool:
    """Whether rows are words with a class each."""
    return task.kind == "tagging" and not source.pack


def _used(source: Files, task: Task) -> Columns:
    """Return the columns that are read: running text needs no label, and only a generation has targets."""
    unused: dict[str, None] = {}
    if task.kind not in ("classification", "regression") or source.pack:
        unused["label"] = None
    if task.kind != "generation" or source.pack:
        unused["target"] = unused["choices"] = None
    return source.columns.model_copy(update=unused)


def _choosable(choices: Sequence[str] | None, target: str | None, targets: Sequence[str | None]) -> list[str] | None:
    """Return the answers of a row: its target, and all that are wrong. Raise DataError where it is none of them."""
    if choices is None or target is None:
        return None
    if target not in choices:
        raise DataError(f"target `{target}` is none of the answers to choose from{suggest(target, choices)}")
    return [answer for answer in choices if answer == target or answer not in targets]


def _normal(text: str, column: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(
            "lone surrogate", f"`{column}` holds half of a surrogate pair at character {error.start}"
        ) from None
    return unicodedata.normalize("NFC", text)
