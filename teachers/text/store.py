"""What a teacher wrote, on disk: shards that are whole or not there, whoever writes them, however often it is killed.

A plan says which rows make which shard. It is a pure function of rows, teacher and decoding; `distill.shares` says who
writes which. A row is known by its id, a hash of its content, never by its number in a file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.data.hashing import mix
from distill.data.rows import Rows
from distill.errors import DataError
from distill.files import digest, write_atomically
from distill.shares import Parts, share_out
from distill.types import Completion
from teachers.text.ledger import Ledger, Usage

_ABOUT = b"distill.shard"
_SPENT = "spent"
_NAME = "shard-{:05d}-of-{:05d}.parquet"
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("texts", pa.list_(pa.large_string())),
        ("scores", pa.list_(pa.float32())),
        ("tokens", pa.list_(pa.list_(pa.int32()))),
        ("ended", pa.list_(pa.bool_())),
    ]
)
"""A row for each source; its lists hold its hypotheses, the best first."""


@dataclass(frozen=True)
class Plan:
    """Which rows make which shard."""

    key: str
    """A digest of all that decides the texts: shards of another key are not of this run."""
    shards: tuple[NDArray[np.int64], ...]
    """Places of the rows"""
    ids: NDArray[np.int64]
    """[N] of all rows"""

    @staticmethod
    def of(rows: Rows, parts: Mapping[str, str], characters: int) -> "Plan":
        """Cut rows into shards of about as many characters each, in an order drawn by their ids.

        `parts` are the digests that decide the texts: of the teacher, the decoding. Raises DataError where two rows
        have one id.
        """
        ids = rows.ids
        if len(np.unique(ids)) != len(ids):
            raise DataError(f"{len(ids) - len(np.unique(ids))} rows come twice; leave them out before a teacher writes")
        order = np.argsort(mix(ids.astype(np.uint64)), kind="stable")
        sizes = np.fromiter((len(row.text) for row in rows), np.int64, len(rows))[order]
        shard = (np.cumsum(sizes) - sizes) // characters
        cuts = np.flatnonzero(np.diff(shard)) + 1
        key = digest(json.dumps(dict(parts), sort_keys=True), str(characters), ids.tobytes())
        return Plan(key, tuple(np.split(order, cuts)) if len(ids) else (), ids)

    def place(self, folder: Path, number: int) -> Path:
        """Where a shard lies."""
        return folder / _NAME.format(number, len(self.shards))


def write_shards(
    plan: Plan,
    folder: Path,
    write: Callable[[NDArray[np.int64]], Sequence[Completion]],
    *,
    about: Mapping[str, Any] | None = None,
    ledger: Ledger | None = None,
    rank: int = 0,
    ranks: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Have all shards written that are not there: a shard is there if its content is what its footer says.

    `write` returns the completions of rows by their places; `about` goes into every footer, and what a shard cost where
    `ledger` keeps that. `progress` is told how many of how many shards are there. Raises DataError where somebody else
    writes for another plan.
    """

    def make(number: int) -> None:
        rows, target = plan.shards[number], plan.place(folder, number)
        if ledger is not None:
            ledger.begin(target, plan.key)
        table = _table(plan.ids[rows], write(rows))
        cost = {} if ledger is None else {_SPENT: ledger.spent()}
        said = {"key": plan.key, "content": _content(table), **cost, **(about or {})}
        described = table.replace_schema_metadata({_ABOUT: json.dumps(said, sort_keys=True)})
        write_atomically(target, partial(pq.write_table, described, compression="zstd"), shared=True)
        if ledger is not None:
            ledger.end(target, plan.key)

    total = len(plan.shards)
    there = partial(_is_whole, plan, folder)
    share_out(Parts(folder, total, there, make), rank=rank, ranks=ranks, progress=progress)
    foreign = [number for number in range(total) if footer(plan.place(folder, number)).get("key") != plan.key]
    if foreign:
        raise DataError(
            f"{folder}: {len(foreign)} of {total} shards were written over by a run of another configuration; give one "
            "of the two another `output`"
        )


def size_on_disk(ids: NDArray[np.int64], completions: Sequence[Completion]) -> int:
    """Return the bytes of a shard with these rows, its footer aside."""
    sink = pa.BufferOutputStream()
    pq.write_table(_table(ids, completions), sink, compression="zstd")
    return int(sink.getvalue().size)


def missing(plan: Plan, folder: Path) -> list[int]:
    """Return the numbers of the shards that are not there, or not as they were written."""
    return [number for number in range(len(plan.shards)) if not _is_whole(plan, folder, number)]


def has_shard(plan: Plan, folder: Path) -> bool:
    """Whether any shard is there, as it was written."""
    return any(_is_whole(plan, folder, number) for number in range(len(plan.shards)))


def collect(plan: Plan, folder: Path) -> pa.Table:
    """Return all shards as one table, in the order of the rows.

    Raises DataError where a shard is missing, a row is not the one asked for, or a score is not a number.
    """
    lacking = missing(plan, folder)
    if lacking:
        named = ", ".join(map(str, lacking[:5])) + (" …" if len(lacking) > 5 else "")
        raise DataError(f"{folder}: {len(lacking)} of {len(plan.shards)} shards are not written: {named}")
    tables = [pq.read_table(plan.place(folder, number)) for number in range(len(plan.shards))]
    joined = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    back = np.argsort(np.concatenate(plan.shards) if plan.shards else np.empty(0, np.int64), kind="stable")
    return joined.take(pa.array(back)).replace_schema_metadata(None)


def gather(folder: Path, key: str, shards: int) -> pa.Table:
    """Return all shards of a plan that is known by its key and number of shards, in no order of the rows.

    Raises DataError where one is missing, of another plan, or not as it was written.
    """
    tables = []
    for number in range(shards):
        place = folder / _NAME.format(number, shards)
        said = footer(place)
        table = pq.read_table(place).replace_schema_metadata(None) if said.get("key") == key else None
        if table is None or _content(table) != said.get("content"):
            raise DataError(f"{place} is not as it was written; delete it, and the same command writes it again")
        tables.append(table)
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def spent(plan: Plan, folder: Path) -> tuple[Usage, int]:
    """Return what all shards of a plan cost, whoever wrote them and when, and how many of them do not tell."""
    told = [footer(plan.place(folder, number)).get(_SPENT) for number in range(len(plan.shards))]
    total = Usage()
    for one in told:
        total.add(Usage(**(one or {})))
    return total, told.count(None)


def footer(path: Path) -> dict[str, Any]:
    """Return what a shard says of itself; empty where it is none."""
    try:
        found: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {})[_ABOUT])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return {}
    return found


def _is_whole(plan: Plan, folder: Path, number: int) -> bool:
    place = plan.place(folder, number)
    said = footer(place)
    if said.get("key") != plan.key:
        return False
    try:
        table = pq.read_table(place, schema=None)
    except (OSError, pa.ArrowInvalid):
        return False
    same = table.schema.equals(SCHEMA) and np.array_equal(table["id"].to_numpy(), plan.ids[plan.shards[number]])
    return bool(same and _content(table) == said.get("content"))


def _table(ids: NDArray[np.int64], completions: Sequence[Completion]) -> pa.Table:
    if len(ids) != len(completions):
        raise DataError(f"the teacher wrote {len(completions)} completions for {len(ids)} rows")
    columns = {
        "id": ids,
        "texts": [[one.text for one in found.texts] for found in completions],
        "scores": [[one.score for one in found.texts] for found in completions],
        "tokens": [[one.tokens for one in found.texts] for found in completions],
        "ended": [[one.ended for one in found.texts] for found in completions],
    }
    _check_scores(ids, columns["scores"])
    return pa.table(columns, schema=SCHEMA)


def _check_scores(ids: NDArray[np.int64], scores: Any) -> None:
    for row, found in zip(ids, scores, strict=True):
        if any(score is not None and not np.isfinite(score) for score in found):
            raise DataError(f"row {row}: the teacher gave a score that is no finite number: {found}")


def _content(table: pa.Table) -> str:
    """Digest the values, not the file: the same texts are the same content under any version of the format."""
    return digest(json.dumps(table.to_pydict(), ensure_ascii=False))
