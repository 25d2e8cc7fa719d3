"""Augmented rows on disk: Parquet files, each whole or not there, each made by whoever is free."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.stages import AugmentStage
from distill.data.augment import Proposer, augment
from distill.data.rows import Rows
from distill.data.sources import METADATA
from distill.errors import DataError
from distill.files import digest, write_atomically
from distill.shares import Parts, share_out

ROWS_A_PART = 1024
"""Rows whose copies go into one file. Fixed, so that the files do not depend on how many processes write them."""


@dataclass(frozen=True)
class Augmentation:
    """What is to be done to the rows, by whom."""

    settings: AugmentStage
    masked_lm: Proposer | None
    neighbours: Proposer
    seed: int

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides the copies but the rows."""
        masked = "none" if self.masked_lm is None else self.masked_lm.fingerprint
        return digest(self.settings.model_dump_json(), str(self.seed), masked, self.neighbours.fingerprint)


def write_augmented(
    rows: Rows,
    folder: Path,
    how: Augmentation,
    *,
    rank: int = 0,
    ranks: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write the rows and their copies to `folder`, and return the notes of all parts.

    A part that is there, of the same rows and augmentation, is left as it is: a run that was interrupted goes on where
    it stopped, with any number of ranks. `rank` of `ranks` share the parts out; whoever returns has seen all of them.
    `progress` is told how many of how many parts are there. Raises DataError where somebody else writes others.
    """
    parts = [rows.part(start, start + ROWS_A_PART) for start in range(0, len(rows), ROWS_A_PART)]
    places = [folder / f"part-{number:05d}.parquet" for number in range(len(parts))]
    common = how.fingerprint
    digests = [digest(common, _content(part)) for part in parts]
    abouts = [{"part": number, "parts": len(parts), "fingerprint": one} for number, one in enumerate(digests)]

    def is_there(number: int) -> bool:
        return _finished(places[number], abouts[number]) is not None

    def make(number: int) -> None:
        _write(parts[number], places[number], how, abouts[number])

    share_out(Parts(folder, len(parts), is_there, make), rank=rank, ranks=ranks, progress=progress)
    _remove_others(folder, len(parts))
    notes: Counter[str] = Counter()
    for place, about in zip(places, abouts, strict=True):
        found = _finished(place, about)
        if found is None:
            raise DataError(
                f"{folder}: parts were written over by a run of another configuration; give one of the two another "
                "`output`"
            )
        notes.update(found)
    return dict(notes)


def _write(part: Rows, place: Path, how: Augmentation, about: dict[str, Any]) -> None:
    notes: Counter[str] = Counter()
    made = augment(part, how.settings, masked_lm=how.masked_lm, neighbours=how.neighbours, seed=how.seed, notes=notes)
    table = Rows.of(list(made)).table
    described = table.replace_schema_metadata({METADATA: json.dumps({**about, "notes": notes})})
    write_atomically(place, lambda partial: pq.write_table(described, partial, compression="zstd"), shared=True)


def _finished(place: Path, about: dict[str, Any]) -> dict[str, int] | None:
    """Return the notes of a part that is there and is the one wanted."""
    try:
        written = json.loads(pq.read_schema(place).metadata[METADATA])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError):
        return None
    notes: dict[str, int] = written.pop("notes")
    return notes if written == about else None


def _content(part: Rows) -> str:
    return digest(part.ids.tobytes(), json.dumps(part.labels))


def _remove_others(folder: Path, parts: int) -> None:
    """Remove what is left of a longer list of parts."""
    for path in folder.glob("part-*.parquet"):
        if int(path.stem.removeprefix("part-")) >= parts:
            path.unlink(missing_ok=True)
