"""What the models of a run read and write in: the teacher's vocabulary, or one that is the student's own."""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from configs.data import StageData, Task
from configs.pipeline import Pipeline
from configs.stages import TrainStage
from configs.students import SizedStudent
from distill import languages
from distill.architecture import check_writes, make_config, written_vocabulary
from distill.data.pairs import TargetLimits
from distill.data.vocabulary import SPECIAL, train_vocabulary
from distill.errors import ModelError
from distill.models import ModelSource, load_config, load_tokenizer
from distill.positions import positions

OWN = "student.vocabulary"


@dataclass(frozen=True)
class Words:
    """A vocabulary, and what a model's configuration says of it."""

    config: PretrainedConfig
    where: str
    """What a run's file calls it"""
    make: Callable[[], PreTrainedTokenizerBase]
    """Loads or learns the tokenizer: texts to learn from may not be written yet when the configuration is asked for"""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer."""
        return self.make()

    def limits(self, task: Task) -> TargetLimits:
        """Return what a model with these words can take of a generation. Raise ModelError where none says how a decoder
        starts.
        """
        start = self.config.decoder_start_token_id if self.config.is_encoder_decoder else None
        if self.config.is_encoder_decoder and start is None:
            raise ModelError(f"{self.where}: the configuration names no decoder_start_token_id")
        room = positions(self.config, "decoder") if start is None else math.inf
        return TargetLimits(task.max_length, task.max_target_length, self.config.vocab_size, start, room)


def of_model(source: ModelSource, task: Task, where: str) -> Words:
    """Return the words of a model, in the languages of the task. Raise ModelError for one it does not have."""
    config = load_config(source, where, weights=False)
    if task.source_language is None:
        return Words(config, where, lambda: _told(source, task, where))
    words = _told(source, task, where)
    languages.settle(config, words)  # says how a decoder starts
    return Words(config, where, lambda: words)


def _told(source: ModelSource, task: Task, where: str) -> PreTrainedTokenizerBase:
    words = load_tokenizer(source, where)
    languages.tell(words, task, where)
    return words


def learnt_by_students(config: Pipeline) -> list[str]:
    """Return the sources that students are trained on."""
    stages = [stage for stage in config.stages.values() if isinstance(stage, TrainStage)]
    return list(dict.fromkeys(name for stage in stages if stage.trains == "student" for name in stage.data))


def learnt_from_files(config: Pipeline) -> list[str]:
    """Return the sources that something is trained on, but for those that a stage has to write first."""
    stages = [stage for stage in config.stages.values() if isinstance(stage, TrainStage)]
    named = dict.fromkeys(name for stage in stages for name in stage.data)
    return [name for name in named if not isinstance(config.data[name], StageData)]


def own_words(
    sizes: SizedStudent, kind: str, size: int, texts: Callable[[], Iterator[str]], folder: Callable[[], Path]
) -> Words:
    """Return words that are learnt from texts when they are first needed, and then kept in a folder.

    Raise ModelError for an architecture that does not write.
    """
    check_writes(kind, "student")
    pad, end = SPECIAL.index("<pad>"), SPECIAL.index("</s>")
    config = make_config(sizes, kind, written_vocabulary(size, pad, end), "student")
    return Words(config, OWN, lambda: _learnt(size, texts, folder()))


def _learnt(size: int, texts: Callable[[], Iterator[str]], target: Path) -> PreTrainedTokenizerBase:
    if not target.is_dir():
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        train_vocabulary(texts(), size, where=OWN).save_pretrained(partial)
        try:
            partial.rename(target)
        except OSError:
            shutil.rmtree(partial)  # another process was faster, with the same texts
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(target)
    return found
