"""The generate stage: the teacher writes a text for every source."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.decoding import Decoding
from configs.endpoint import Endpoint
from configs.stages import GenerateStage, RecordStage
from distill.callbacks.progress import ProgressLine
from distill.data.rows import Rows
from distill.errors import DataError, ModelError, TeacherError
from distill.files import digest
from distill.models import Loaded, ModelSource, fingerprint, load, load_config, load_tokenizer
from distill.positions import positions
from distill.protocols import TextTeacher
from distill.types import Completion
from distill.virtual import learned
from pipelines.place import own_device, share
from pipelines.run import Run
from pipelines.stage import Stage
from teachers.text.build import Asked, Built, build
from teachers.text.huggingface import check_same, check_searchable
from teachers.text.ledger import Ledger
from teachers.text.sources import check_vocabulary, language_id, too_long
from teachers.text.store import Plan, gather, has_shard, spent, write_shards

SHARDS = "shards"
SHOWN = 5
"""Refusals of an API that are kept word by word"""
TRIED = 8
"""Rows an API may refuse before any has a text: if there are so many, it refuses all"""


@dataclass
class Work:
    """What is to be written, and who writes it."""

    texts: Sequence[str]
    """Sources, by their places"""
    left_out: int
    """Rows the teacher has no positions for"""
    built: Built
    plan: Plan
    decoding: Decoding
    shards: Path
    """Folder of what is written"""
    answered: bool
    """Whether there is a text, or will be one: only an API may refuse all rows"""

    def write(self, places: NDArray[np.int64]) -> list[Completion]:
        """Have the texts of some rows written; a row that an API refuses has none.

        Raises TeacherError where it refuses the first rows that it is asked for: some of these, and if they are too few
        to tell, others of the plan.
        """
        if self.answered:
            return self._written(places)
        first = self._written(places[:TRIED])
        if not any(completion.texts for completion in first) and not has_shard(self.plan, self.shards):
            self._ask_for_others(places[:TRIED])  # so that no shard is written before there was a text
        self.answered = True
        return first + self._written(places[TRIED:])

    def _ask_for_others(self, refusing: NDArray[np.int64]) -> None:
        """Ask for rows beside those that were refused, until one has a text."""
        order = np.concatenate(self.plan.shards)
        others = order[~np.isin(order, refusing)][: TRIED - len(refusing)]
        if not any(self._written(others[n : n + 1])[0].texts for n in range(len(others))):
            asked = len(refusing) + len(others)
            raise TeacherError(f"{refused(self.built.teacher)[-1]}; it was asked for {asked} rows, and refused all")

    def _written(self, places: NDArray[np.int64]) -> list[Completion]:
        found = dict(self.built.teacher.generate([self.texts[place] for place in places], self.decoding))
        return [found[number] for number in range(len(places))]


class Generate(Stage[GenerateStage]):
    """Writes shards of texts; a run that was cut goes on at the next one, and any number of processes may take part."""

    kind = "generate"
    joint = True

    def fingerprint(self) -> str:
        """Depend on the sources, the section and the teacher."""
        run, config = self._run, self._config
        sources = [run.source_fingerprint(name) for name in config.data]
        teacher = self._voices() if config.endpoint is None else ""
        languages = filter(None, (run.config.task.source_language, run.config.task.target_language))
        return digest("generate", config.model_dump_json(), teacher, *languages, *sources)

    def run(self, output: Path) -> dict[str, Any]:
        """Write what is not written yet."""
        run, work = self._run, self.prepared(output)
        teacher, plan, here = work.built.teacher, work.plan, 0
        run.console.print(f"  {teacher.describe()} ({work.built.why})", highlight=False)

        def write(places: NDArray[np.int64]) -> Sequence[Completion]:
            nonlocal here
            here += len(places)
            return work.write(places)

        began = time.monotonic()
        about = {"engine": teacher.describe(), "parity": work.built.parity}
        shared = dict(zip(("rank", "ranks"), share(), strict=True))
        ledger: Ledger | None = getattr(teacher, "ledger", None)
        with ProgressLine(run.console, self.title, "shards") as line:
            write_shards(plan, work.shards, write, about=about, ledger=ledger, **shared, progress=line.advance)
        seconds = time.monotonic() - began
        return {
            "rows": len(plan.ids),
            "left_out": work.left_out,
            "key": plan.key,
            "shards": len(plan.shards),
            "rows_here": here,
            "sentences_per_second": round(here / seconds, 1) if here else None,
            "why": work.built.why,
            **about,
            **paid(work, self.endpoint),
            **self._without_text(plan, work.shards, teacher),
        }

    def _without_text(self, plan: Plan, folder: Path, teacher: TextTeacher) -> dict[str, Any]:
        """Count the sources an API refused, in this process or an earlier one; say why of some of this one's."""
        if self.endpoint is None:
            return {}
        count = sum(not texts for texts in gather(folder, plan.key, len(plan.shards))["texts"].to_pylist())
        if count:
            self._run.screen.warning(
                f"stages.{self.name}: refused, and without a text: {count:,} of {len(plan.ids):,} sources"
            )
        reasons = dict.fromkeys(map(str, refused(teacher)))  # a row may have been asked twice
        return {"refused": count, "refusals": [*reasons][:SHOWN]}

    @property
    def endpoint(self) -> Endpoint | None:
        """The API that is asked, if one is."""
        return self._config.endpoint

    def prepared(self, output: Path) -> Work:
        """Return what is to be written under `output`, and who writes it."""
        run, config = self._run, self._config
        every = different(Rows.concatenate([run.rows(name) for name in config.data]))
        rows, built = self._teacher(every)
        parts = {"teacher": built.teacher.fingerprint, "decoding": config.decoding.model_dump_json()}
        if config.endpoint is None and run.config.task.source_language is not None:  # an API is told by its prompt
            parts["languages"] = f"{run.config.task.source_language} {run.config.task.target_language}"
        plan = Plan.of(rows, parts, config.shard_characters)
        return Work(
            texts=[row.text for row in rows],
            left_out=len(every) - len(rows),
            built=built,
            plan=plan,
            decoding=config.decoding,
            shards=output / SHARDS,
            answered=config.endpoint is None,
        )

    def _voices(self) -> str:
        return voices(self._run, self._config)

    def _teacher(self, every: Rows) -> tuple[Rows, Built]:
        """Return who writes, and the rows there are texts to be written for."""
        run, config = self._run, self._config
        if config.endpoint is not None:
            return every, Built(black_box(config.endpoint), "asked for", None)
        loaded = run.load_teacher(config.teacher)
        rows = writable(every, loaded, config, f"stages.{self.name}")
        check_some(len(rows), f"stages.{self.name}")
        texts = [row.text for row in rows]
        run.cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=run.cache, prefix="ctranslate2-") as scratch:  # read into memory at once
            asked = Asked(
                engine=config.engine,
                compute_type=config.compute_type,
                folder=Path(scratch),
                probes=texts[:: max(1, len(texts) // 32)],
                decoding=config.decoding,
                device=own_device(run.device.torch_name),
                threads=run.device.threads,
                ensemble=tuple(others(run, config, f"stages.{self.name}")),
            )
            return rows, build(loaded, self._voices(), asked)


def voices(run: Run, stage: GenerateStage | RecordStage) -> str:
    """Return a digest of a stage's teacher and the models that join it."""
    teacher = run.teacher_fingerprint(stage.teacher)
    more = [fingerprint(ModelSource(path)) for path in stage.ensemble]
    return digest(teacher, *more) if more else teacher


def others(run: Run, stage: GenerateStage | RecordStage, where: str) -> Iterator[Loaded]:
    """Yield the models that join a stage's teacher."""
    for number, path in enumerate(stage.ensemble):
        yield load(ModelSource(path), run.config.task, (), f"{where}.ensemble.{number}", run.dtype)


def black_box(endpoint: Endpoint) -> TextTeacher:
    """Return a model behind an API, once it has answered. Raise ModelError where its package is not installed, and
    TeacherError where it cannot be reached, refuses, or has no such model.
    """
    if find_spec("openai") is None:
        raise ModelError("endpoint: the package openai is not installed: pip install 'distill-pipeline[openai]'")
    from teachers.text.openai import EndpointWriter

    writer = EndpointWriter(endpoint)
    writer.check()
    return writer


def refused(teacher: TextTeacher) -> list[TeacherError]:
    """Return why rows have no text; only an API refuses."""
    found: list[TeacherError] = getattr(teacher, "refusals", [])
    return found


def bill(teacher: TextTeacher, endpoint: Endpoint | None) -> dict[str, Any]:
    """Return what an API counted of the requests this process made since it started."""
    if endpoint is None:
        return {}
    from teachers.text.openai import EndpointWriter

    assert isinstance(teacher, EndpointWriter)
    return {**asdict(teacher.usage), "price": round(teacher.usage.price(endpoint), 6)}


def paid(work: Work, endpoint: Endpoint | None) -> dict[str, Any]:
    """Return what an API counted of the requests for all shards, by any process; `untold` are shards from before costs
    were kept.
    """
    if endpoint is None:
        return {}
    usage, untold = spent(work.plan, work.shards)
    return {**asdict(usage), "price": round(usage.price(endpoint), 6), "untold": untold}


def writable(rows: Rows, loaded: Loaded, stage: GenerateStage, where: str) -> Rows:
    """Return the rows a teacher has positions for. Raise DataError for one that is too long, unless such are left out,
    and ModelError for a teacher that cannot be searched with, or has no token for the language.
    """
    check_searchable(loaded.model)
    if stage.decoding.language is not None:
        language_id(stage.decoding.language, loaded.tokenizer)
    before = learned(loaded.model).tokens
    found = too_long([row.text for row in rows], loaded.tokenizer, loaded.model.config, before)
    if found and stage.long_sources == "error":
        place, tokens = found[0]
        text = next(iter(rows.part(place, place + 1))).text
        more = f", as are {len(found) - 1} more" if len(found) > 1 else ""
        raise DataError(
            f"{where}.data: a source of {tokens} tokens is longer than the "
            f"{positions(loaded.model.config) - before} positions of the teacher{more}: {text[:60]!r}…; nothing is "
            "cut: `long_sources: leave_out` leaves such rows out"
        )
    keep = np.ones(len(rows), dtype=np.bool_)
    keep[[place for place, _ in found]] = False
    return rows.take(keep)


def check_some(rows: int, where: str) -> None:
    """Raise DataError where no row is left to be written for."""
    if not rows:
        raise DataError(f"{where}.data: no source is left: all are longer than the positions of the teacher")


def check_ensemble(loaded: Loaded, stage: GenerateStage | RecordStage, where: str) -> None:
    """Check, from their files, that models can write as one with the teacher. Raise ModelError where they cannot."""
    for number, path in enumerate(stage.ensemble):
        at, source = f"{where}.ensemble.{number}", ModelSource(path)
        config = load_config(source, at)
        check_vocabulary(loaded.tokenizer, load_tokenizer(source, at), at)
        try:
            check_same(loaded.model.config, config)
        except ModelError as error:
            raise ModelError(f"{at}: {error}") from None


def different(rows: Rows) -> Rows:
    """Return the rows without those whose source stood before: a teacher writes for it once."""
    _, first = np.unique(rows.ids, return_index=True)
    keep = np.zeros(len(rows), dtype=np.bool_)
    keep[first] = True
    return rows.take(keep)
