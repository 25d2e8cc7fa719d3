"""What all stages of a run share: configuration, folder, device, rows, teacher, labels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.data import Embedded, Files, Held, StageData
from configs.pipeline import Pipeline
from configs.stages import TrainStage
from configs.teachers import FreshTeacher
from configs.teachers import LiveTeacher as GivenTeacher
from distill.data.labels import encode, label_names, permutation
from distill.data.masking import Masking
from distill.data.pairs import TargetLimits, tokenise_targets
from distill.data.rows import Rows
from distill.data.sources import read
from distill.data.table import TokenTable
from distill.data.tagged import tokenise_words
from distill.data.tokenise import Limits, pack, tokenise
from distill.errors import ModelError
from distill.files import digest, digest_file
from distill.metrics import Kind, score, validation_metric
from distill.models import Loaded, ModelSource, fast, fingerprint, load, load_config, load_tokenizer
from distill.models import label_names as model_labels
from distill.types import IGNORED
from pipelines.machine import Device
from pipelines.score import EncodedRows, permute, predict, target_scores
from pipelines.screen import Screen
from pipelines.stage import results_of
from students.adapters.register import register
from teachers import fresh
from teachers.live import LiveTeacher


class Run:
    """The shared context; everything in it is read once, when first asked for."""

    def __init__(
        self,
        config: Pipeline,
        device: Device,
        console: Console,
        *,
        allow_code: bool = False,
        cache: Path | None = None,
    ) -> None:
        """Take a checked configuration and the machine it runs on; what can be made again lies in `cache`."""
        self.config = config
        self.device = device
        self.console = console
        self.screen = Screen(console)
        self.allow_code = allow_code
        self.folder = config.output
        self.cache = cache or config.output / "cache"
        self._rows: dict[str, Rows] = {}
        self._tables: dict[tuple[str, ...], TokenTable] = {}
        register()  # folders of our own adapters are read like any

    # models

    @cached_property
    def base(self) -> ModelSource:
        """The teacher model as given, or as made from nothing."""
        match self.config.teacher:
            case GivenTeacher() as teacher:
                return ModelSource(teacher.model, teacher.revision)
            case FreshTeacher() as teacher:
                return ModelSource(
                    str(fresh.make(teacher, self.config.task, self._texts, self.config.seed, self.cache / "teacher"))
                )

    def teacher_source(self, kind: str) -> ModelSource:
        """Where the teacher of a stage lies: as given (`base`), or as fine-tuned in this run (`task`), if it is."""
        trained = self.teacher_stage if kind == "task" else None
        return self.base if trained is None else ModelSource(str(self.stage_folder(trained, None) / "model"))

    @cached_property
    def teacher_stage(self) -> str | None:
        """Name of the stage that fine-tunes the teacher, if there is one."""
        stages = self.config.stages.items()
        return next(
            (name for name, stage in stages if isinstance(stage, TrainStage) and stage.trains == "teacher"), None
        )

    def load_teacher(self, kind: str) -> Loaded:
        """Load the teacher model of a stage."""
        return load(self.teacher_source(kind), self.config.task, self.labels, "teacher.model", _dtype(self.config))

    def live_teacher(self, kind: str, loaded: Loaded, autocast: torch.dtype | None = None) -> LiveTeacher:
        """Freeze a loaded teacher; `autocast` is the type that the training computes products in, if not its own."""
        return LiveTeacher(
            loaded, self.config.task, self.teacher_fingerprint(kind), self.label_order(loaded), autocast=autocast
        )

    def fresh_teacher(self) -> Loaded:
        """Load the teacher model with a head for the task, in fp32, to fine-tune it."""
        return load(self.base, self.config.task, self.labels, "teacher.model")

    def label_order(self, loaded: Loaded) -> list[int] | None:
        """Return the teacher's output for each class of the run, matched by name; none where they agree."""
        if not self.config.task.has_classes or not loaded.trained_head:
            return None
        return permutation(model_labels(loaded.model.config), self.labels, f"teacher.model: {loaded.source}")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer, which is the student's too."""
        return load_tokenizer(self.base, "teacher.model")

    # rows

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the outputs; empty where outputs are no classes."""
        task = self.config.task
        if not task.has_classes:
            return ()
        if task.labels is not None:
            return task.labels
        labelled = [name for name, source in self.config.data.items() if _may_have_labels(source)]
        return label_names(task, [self.rows(name) for name in labelled])

    def rows(self, name: str) -> Rows:
        """Return the rows of a source."""
        if name not in self._rows:
            folders = {stage: self.stage_folder(stage, None) for stage in self.config.stages}
            self._rows[name] = read(
                name, self.config.data, self.config.task, stage_outputs=folders, seed=self.config.seed
            )
        return self._rows[name]

    def table(self, names: Sequence[str]) -> TokenTable:
        """Return the tokens of one or more sources, one after the other; plain text is packed to the full length."""
        key = tuple(names)
        if key not in self._tables:
            self._tables[key] = TokenTable.concatenate([self._tokens(name) for name in names])
        return self._tables[key]

    def _tokens(self, name: str) -> TokenTable:
        rows, task = self.rows(name), self.config.task
        limits = Limits(task.max_length, load_config(self.base, "teacher.model").vocab_size)
        tokens = self.cache / "tokens"
        if task.kind == "generation":
            return tokenise_targets(rows, self.tokenizer, self._target_limits, tokens)
        tokenizer = fast(self.tokenizer, "teacher.model")
        if self._is_plain_text(name):
            return self._without_labels(pack(rows, tokenizer, limits, tokens))
        if task.kind == "tagging":
            return tokenise_words(rows, self.labels, tokenizer, limits, tokens)
        return tokenise(rows, encode(rows, task, self.labels), tokenizer, limits, tokens)

    def _without_labels(self, table: TokenTable) -> TokenTable:
        """Give rows of running text what the task asks of their positions."""
        match self.config.task.kind:
            case "masked_lm":
                return replace(table, masking=Masking.of(self.tokenizer, "teacher.model"))
            case "tagging":
                return replace(table, tags=np.full(len(table.tokens), IGNORED, dtype=np.int64))
            case _:
                return table

    @property
    def _target_limits(self) -> TargetLimits:
        task, config = self.config.task, load_config(self.base, "teacher.model")
        start = None
        if config.is_encoder_decoder:
            start = config.decoder_start_token_id
            if start is None:
                raise ModelError(
                    f"teacher.model: the configuration of {self.base.path} names no decoder_start_token_id"
                )
        return TargetLimits(task.max_length, task.max_target_length, config.vocab_size, start)

    def _texts(self) -> Iterator[str]:
        """Yield the texts that something is trained on, but for those that a stage has to write first."""
        stages = [stage for stage in self.config.stages.values() if isinstance(stage, TrainStage)]
        named = dict.fromkeys(name for stage in stages for name in stage.data)
        for name in named:
            if isinstance(self.config.data[name], StageData):
                continue
            for row in self.rows(name):
                yield " ".join(filter(None, (row.text, row.pair)))
                if row.target is not None:
                    yield row.target

    def _is_plain_text(self, name: str) -> bool:
        """Whether a source is running text, to be packed."""
        source = self.config.data[name]
        return self.config.task.is_plain_text or (isinstance(source, Files) and source.pack)

    def scored_rows(self, name: str) -> EncodedRows:
        """Return the rows of a source ready to be scored and timed."""
        table = self.table((name,))
        return EncodedRows.of(table, self.tokenizer.pad_token_id)

    def score(
        self, model: PreTrainedModel, table: TokenTable, order: list[int] | None = None, at_most: int | None = None
    ) -> dict[str, float]:
        """Score a model on the rows of a table, or on some of them spread over all lengths."""
        rows = EncodedRows.of(table, self.tokenizer.pad_token_id)
        picked = rows.spread(at_most or len(rows))
        if self.config.task.kind == "generation":
            return target_scores(model, rows.batches(picked))
        logits = permute(predict(model, rows.batches(picked)), order)
        labels = rows.labels[torch.from_numpy(picked)]
        return score(cast(Kind, self.config.task.kind), logits, labels, self.labels)

    @property
    def validation_metric(self) -> str:
        """The number that tells the best of several trainings."""
        return validation_metric(self.config.task)

    # places and digests

    def seeds_of(self, name: str) -> list[int | None]:
        """Return the seeds a stage runs under; [None] where all repeats share it."""
        if self._is_shared(name):
            return [None]
        return [self.config.seed + number for number in range(self.config.repeats)]

    def stage_folder(self, name: str, seed: int | None) -> Path:
        """Return the folder of a stage; a stage that all repeats share lies beside the seeds, and where it asks for
        one that they do not share, it means the first seed's.
        """
        number = self.config.seed if seed is None else seed
        return self.folder / name if self._is_shared(name) else self.folder / f"seed-{number}" / name

    def _is_shared(self, name: str) -> bool:
        stage = self.config.stages[name]
        return not isinstance(stage, TrainStage) or stage.once or stage.trains == "teacher"

    def stage_fingerprint(self, name: str, seed: int | None) -> str:
        """Return the fingerprint a finished stage was marked with."""
        return str(results_of(self.stage_folder(name, seed))["fingerprint"])

    def teacher_fingerprint(self, kind: str) -> str:
        """Return the digest of a teacher model's files."""
        return fingerprint(self.teacher_source(kind))

    def source_fingerprint(self, name: str) -> str:
        """Return a digest of what a source holds: its section, and its files where they are local."""
        source = self.config.data[name]
        section = source.model_dump_json()
        match source:
            case Held():
                return digest(section, self.source_fingerprint(source.of), str(self.config.seed))
            case StageData():
                return digest(section, self.stage_fingerprint(source.stage, None))
            case Embedded():
                return digest(section)
            case Files():
                paths = [source.path, *filter(None, [source.target_path])]
                return digest(section, *(digest_file(file) for path in paths for file in _local_files(path)))


def _dtype(config: Pipeline) -> torch.dtype:
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[config.teacher.dtype]


def _may_have_labels(source: object) -> bool:
    return not (isinstance(source, Files) and source.columns.label is None) and not isinstance(source, StageData)


def _local_files(path: str) -> list[Path]:
    whole = Path(path).expanduser()
    if whole.is_dir():
        return sorted(part for part in whole.rglob("*") if part.is_file())
    if whole.is_file():
        return [whole]
    return sorted(whole.parent.glob(whole.name)) if whole.parent.is_dir() else []
