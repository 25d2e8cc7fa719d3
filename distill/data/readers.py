"""File formats: each reader yields one record a row, or the reason why a row cannot be read."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from distill.data.rows import BadRow
from distill.errors import DataError

LONGEST = 1_000_000
"""Characters a text may have; a longer one is nearly always a quote that was never closed."""
Ending = Literal["csv", "tsv", "jsonl", "parquet", "lines", "conllu", "conll"]
_ENDINGS: dict[str, Ending] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "lines",
    ".text": "lines",
    ".raw": "lines",
    ".conllu": "conllu",
    ".conll": "conll",
    ".iob2": "conll",
    ".bio": "conll",
}
_LITERAL = "set `quoting: false` if quotes are part of the texts"
_BATCH = 4096


Item = tuple[int, Mapping[str, Any] | BadRow]
"""Number of the line or row, and what is in it."""


@dataclass(frozen=True)
class Reading:
    """A file, opened."""

    columns: tuple[str, ...]
    items: Iterator[Item]
    unit: str = ":"
    """What stands between the file's name and the number of a row: `:` for lines, ` row ` for what has none."""


@dataclass(frozen=True)
class Dialect:
    """How a CSV or TSV file is written."""

    delimiter: str
    quoting: bool = True
    header: tuple[str, ...] | None = None
    """Names of the columns where the file has no line for them."""


def ending_format(path: str) -> Ending | None:
    """Return the format a file's ending stands for, .gz aside; None where it stands for none."""
    return _ENDINGS.get(Path(path.removesuffix(".gz")).suffix.lower())


def known_endings() -> str:
    """Return the endings of data files, for messages."""
    return ", ".join(_ENDINGS)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text with its line end). A line ends at a line feed, nowhere else.

    Raise DataError where the bytes are not UTF-8, with the place of the first that is not.
    """
    offset = 0
    with _opened(path) as handle:
        for number, raw in enumerate(handle, 1):
            yield number, _decode(raw, path, number, offset)
            offset += len(raw)


def read_text(path: Path, pattern: str | None) -> Reading:
    """Read one text a line, blank lines skipped; the named groups of a pattern become columns."""
    filled = ((number, line.rstrip("\r\n")) for number, line in read_lines(path) if line.strip())
    if pattern is None:
        return Reading(("text",), ((number, {"text": line}) for number, line in filled))
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"pattern `{pattern}` is no regular expression: {error}") from None
    if not compiled.groupindex:
        raise DataError(f"pattern `{pattern}` has no named group; write (?P<text>…)")
    return Reading(tuple(compiled.groupindex), ((number, _match(compiled, line)) for number, line in filled))


def read_parallel(path: Path, targets: Path) -> Reading:
    """Read two files whose lines belong together: columns `text` and `target`; a blank line is an empty text.

    Raise DataError, before any row is given, where one has more lines than the other.
    """
    if not targets.is_file():
        raise DataError(f"target_path: {targets} not found")
    counts = [sum(1 for _ in read_lines(file)) for file in (path, targets)]
    if counts[0] != counts[1]:
        raise DataError(
            f"{path} has {counts[0]:,} lines, {targets} has {counts[1]:,}; line n of one must be the translation of "
            "line n of the other"
        )
    both = zip(read_lines(path), read_lines(targets), strict=True)
    items = (
        (number, {"text": text.rstrip("\r\n"), "target": target.rstrip("\r\n")}) for (number, text), (_, target) in both
    )
    return Reading(("text", "target"), items)


def read_separated(path: Path, dialect: Dialect) -> Reading:
    """Read CSV or TSV. Nothing is guessed: `NA`, `null` and `1` stay the texts they are."""
    records = _records(path, dialect)
    if dialect.header is not None:
        first = next(records, None)
        if first is not None and first[1] == list(dialect.header):
            raise DataError(f"{path}:1: the line holds the column names itself; leave out `header`")
        names = dialect.header
        records = chain([first] if first else [], records)
    else:
        names = _header(path, records)
    return Reading(names, ((number, _named(names, fields)) for number, fields in records))


def read_json(path: Path) -> Reading:
    """Read one JSON object a line, or a list of objects that is the whole file; the first object tells the columns."""
    filled = ((number, line) for number, line in read_lines(path) if line.strip())
    start = next(filled, None)
    if start is None:
        raise DataError(f"{path}: the file is empty")
    lines = chain([start], filled)
    if start[1].lstrip().startswith("["):
        return _read_list(path, lines)
    items = ((number, _parse(line)) for number, line in lines)
    first = next(items)
    return Reading(_columns_of(first[1]), chain([first], items))


def read_parquet(path: Path, wanted: Sequence[str]) -> Reading:
    """Read the wanted columns of a Parquet file."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged, or no Parquet file: {str(error).splitlines()[0]}") from None
    columns = tuple(file.schema_arrow.names)
    batches = file.iter_batches(_BATCH, columns=[name for name in columns if name in wanted])
    return Reading(columns, enumerate(_rows_of(batches, path), 1), " row ")


@contextmanager
def _opened(path: Path) -> Iterator[Iterable[bytes]]:
    """Open a file, unpacking .gz; name it where it is damaged."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            yield handle
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from None


def _decode(raw: bytes, path: Path, number: int, offset: int) -> str:
    if number == 1:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{path}: the file is UTF-16; write it as UTF-8: iconv -f utf-16 -t utf-8")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: byte 0x{raw[error.start]:02x} at offset {offset + error.start} is not UTF-8; "
            "if the file is Latin-1, write it as UTF-8: iconv -f latin1 -t utf-8"
        ) from None


def _match(pattern: re.Pattern[str], line: str) -> Mapping[str, Any] | BadRow:
    found = pattern.fullmatch(line)
    if found is None:
        return BadRow("not of the pattern", f"the line does not match the pattern `{pattern.pattern}`")
    return found.groupdict()


def _records(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yield (first line, fields) of each record that is not blank."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quoting else csv.QUOTE_NONE
    csv.field_size_limit(LONGEST)
    texts = (line for _, line in read_lines(path))
    reader = csv.reader(texts, delimiter=dialect.delimiter, quoting=quoting, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = f"; {_LITERAL}" if dialect.quoting else ""
            yield start, BadRow("broken quotes or fields", f"{error}{hint}")
            continue
        if reader.line_num > start and dialect.delimiter == "\t" and any("\t" in field for field in fields):
            problem = f"a quoted field runs on to line {reader.line_num}, over tabs"
            yield (
                start,
                BadRow("broken quotes or fields", f"{problem}; set `quoting: false` if quotes are part of the texts"),
            )
        elif fields:
            yield start, fields


def _header(path: Path, records: Iterator[tuple[int, list[str] | BadRow]]) -> tuple[str, ...]:
    number, fields = next(records, (1, []))
    if isinstance(fields, BadRow):
        raise DataError(f"{path}:{number}: {fields}")
    if not fields:
        raise DataError(f"{path}: the file is empty")
    twice = sorted({name for name in fields if fields.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}:{number}: column `{twice[0]}` is there twice; without a header line name the columns in `header`"
        )
    return tuple(fields)


def _named(names: tuple[str, ...], fields: list[str] | BadRow) -> Mapping[str, Any] | BadRow:
    if isinstance(fields, BadRow):
        return fields
    if len(fields) != len(names):
        return BadRow("too few or too many fields", f"{len(fields)} fields where the header has {len(names)}")
    return dict(zip(names, fields, strict=True))


def _parse(line: str) -> Mapping[str, Any] | BadRow:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow("broken JSON", f"broken JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return BadRow("broken JSON", "broken JSON: nested too deeply")
    return value if isinstance(value, dict) else _no_object(value, "one a line")


def _read_list(path: Path, lines: Iterator[tuple[int, str]]) -> Reading:
    """Read a list of objects, whole: where it is broken, no part of it is a row."""
    first, text = next(lines)
    try:
        found = json.loads(text + "".join(line for _, line in lines))
    except json.JSONDecodeError as error:
        at = f"{path}:{first + error.lineno - 1}"
        raise DataError(f"{at}: broken JSON: {error.msg} at column {error.colno} of a list") from None
    except RecursionError:
        raise DataError(f"{path}: broken JSON: nested too deeply") from None
    rows = [value if isinstance(value, dict) else _no_object(value, "in the list") for value in found]
    if not rows:
        raise DataError(f"{path}: the list is empty")
    return Reading(_columns_of(rows[0]), enumerate(rows, 1), " row ")


def _columns_of(row: Mapping[str, Any] | BadRow) -> tuple[str, ...]:
    return tuple(row) if isinstance(row, Mapping) else ()


def _no_object(value: object, where: str) -> BadRow:
    return BadRow("broken JSON", f"{_kind_of(value)} where an object is expected, {where}")


def _kind_of(value: object) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _rows_of(batches: Iterator[Any], path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        for batch in batches:
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged Parquet file: {str(error).splitlines()[0]}") from None
