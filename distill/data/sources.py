"""From a named source of the run to clean rows."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.data import Columns, Embedded, Files, Held, Source, StageData, Task
from configs.errors import suggest
from distill.data import splits
from distill.data.cleaning import Collector, wanted_columns
from distill.data.locate import Place, locate
from distill.data.readers import Dialect, Reading, read_json, read_parallel, read_parquet, read_separated, read_text
from distill.data.rows import Rows
from distill.data.word_lines import CONLLU, read_word_lines
from distill.errors import DataError

METADATA = b"distill"
"""Key under which a Parquet file of a stage tells which part of how many it is."""


def read(name: str, sources: Mapping[str, Source], task: Task, *, stage_outputs: Mapping[str, Path], seed: int) -> Rows:
    """Return the rows of a source, without those that other sources hold out of it.

    `stage_outputs` are the folders of the stages done so far; `seed` is the run's and decides what is held out. Which
    rows are returned does not depend on the order they stand in. Raise DataError, with the source's name, on anything
    that is not as the run says.
    """
    run = _Run(sources, task, stage_outputs, seed)
    rows = run.whole(name)
    with _naming(name):
        return splits.remainder(rows, run.shares(name), (seed, name))


@dataclass(frozen=True)
class _Run:
    sources: Mapping[str, Source]
    task: Task
    stage_outputs: Mapping[str, Path]
    seed: int

    def whole(self, name: str, path: tuple[str, ...] = ()) -> Rows:
        """Return the rows of a source, those included that others hold out of it."""
        with _naming(name):
            source = self._source(name, path)
            if not isinstance(source, Held):
                return self._read(source)
        rows = self.whole(source.of, (*path, name))
        with _naming(name):
            return splits.held_out(rows, name, self.shares(source.of), (self.seed, source.of))

    def shares(self, name: str) -> dict[str, float]:
        """Return who holds out which fraction of a source."""
        held = {other: source for other, source in self.sources.items() if isinstance(source, Held)}
        return {other: source.fraction for other, source in held.items() if source.of == name}

    def _source(self, name: str, path: tuple[str, ...]) -> Source:
        if name in path:
            raise DataError(f"held out of itself: {' of '.join((*path, name))}")
        if name not in self.sources:
            raise DataError(f"no such source{suggest(name, self.sources)}")
        source = self.sources[name]
        if isinstance(source, StageData) and path:
            raise DataError(
                f"{path[-1]} holds out of what stage `{source.stage}` wrote, where a row and its copies would fall on "
                "both sides; hold out of the source that stage reads"
            )
        return source

    def _read(self, source: Files | Embedded | StageData) -> Rows:
        match source:
            case Files():
                rows = _read_files(source, self.task)
            case Embedded():
                rows = _read_embedded(source, self.task)
            case StageData():
                return _read_stage(source.stage, self.stage_outputs)
        return rows if source.limit is None else splits.limit(rows, source.limit)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the source's name before whatever is wrong with it."""
    try:
        yield
    except DataError as problem:
        raise DataError(f"data.{name}: {problem}") from None


def _read_files(source: Files, task: Task) -> Rows:
    collector = Collector(source, task)
    documents: list[int] = []
    places = locate(source)
    if source.target_path is not None and len(places) > 1:
        raise DataError(f"target_path belongs to one file, {source.path} matches {len(places)}")
    for number, place in enumerate(places):
        before = len(collector)
        collector.take(str(place.path), _open(place, source, task))
        documents += [number] * (len(collector) - before)
    rows = collector.rows(source.path)
    if any(place.format != "lines" for place in places):
        return rows
    return Rows(rows.table.append_column("document", pa.array(documents, pa.int32())), rows.notes)


def _open(place: Place, source: Files, task: Task) -> Reading:
    path = place.path
    match place.format:
        case "csv":
            return read_separated(path, Dialect(",", source.quoting, source.header))
        case "tsv":
            return read_separated(path, Dialect("\t", source.quoting, source.header))
        case "jsonl":
            return read_json(path)
        case "parquet":
            return read_parquet(path, wanted_columns(source, task))
        case "conllu" | "conll":
            return read_word_lines(path, CONLLU if place.format == "conllu" else source.header)
        case "lines" if source.target_path is not None:
            return read_parallel(path, Path(source.target_path).expanduser())
        case "lines":
            return read_text(path, source.pattern)
        case "folder" | "hub":
            from distill.data import hub  # brings in `datasets`, which is slow to import

            return hub.read_folder(path, source) if place.format == "folder" else hub.read_hub(source)


def _read_embedded(source: Embedded, task: Task) -> Rows:
    from distill.data.embedded import dates, grammar  # with their rows only where they are asked for

    if (source.name == dates.NAME) != (task.kind == "generation") or task.kind == "tagging":
        kind = "generation" if source.name == dates.NAME else "classification"
        raise DataError(f"`{source.name}` is for a {kind}, and `task.kind` is `{task.kind}`")
    found: list[Mapping[str, Any]]
    if source.name == dates.NAME:
        found = [{"text": text, "target": target} for text, target in dates.load_pairs(source.part)]
        if source.part == "test":  # all that is right, to be compared with
            every = zip(found, dates.renderings("test"), strict=True)
            found = [{**row, "target": target} for row, targets in every for target in targets]
    else:
        found = [dict(row) for row in grammar.load(source.name, source.part)]
    named = [name for name in ("label", "target") if found[0].get(name) is not None]
    columns = Columns(label="label" if "label" in named else None, target="target" if "target" in named else None)
    collector = Collector(Files(path=source.name, columns=columns), task)
    collector.take(source.name, Reading(("text", *named), enumerate(found, 1), " row "))
    return collector.rows(source.name)


def _read_stage(stage: str, outputs: Mapping[str, Path]) -> Rows:
    if stage not in outputs:
        raise DataError(f"stage `{stage}` has written nothing yet{suggest(stage, outputs) if outputs else ''}")
    files = sorted(outputs[stage].glob("*.parquet"))
    if not files:
        raise DataError(f"{outputs[stage]} holds no rows; run stage `{stage}` again")
    tables = [_read_part(path) for path in files]
    parts = [json.loads(table.schema.metadata[METADATA]) for table in tables]
    if [part["part"] for part in parts] != list(range(parts[0]["parts"])):
        raise DataError(f"{outputs[stage]} holds {len(parts)} of {parts[0]['parts']} parts; run stage `{stage}` again")
    bare = [table.replace_schema_metadata() for table in tables]
    return Rows.concatenate([Rows(table, part["notes"]) for table, part in zip(bare, parts, strict=True)])


def _read_part(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged: {str(error).splitlines()[0]}; delete it and run its stage again") from None
    if METADATA not in (table.schema.metadata or {}):
        raise DataError(f"{path} was not written by a stage")
    return table
