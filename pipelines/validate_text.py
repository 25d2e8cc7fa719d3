"""How good the texts of a model in training are: written greedily for a fixed part of the validation rows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import nsmallest
from typing import Any, cast

import torch.distributed as dist
from torch import nn
from transformers import PreTrainedTokenizerBase

from configs.data import Task
from configs.decoding import Decoding
from distill import text_metrics
from distill.data.hashing import hash_text
from distill.metrics import main_metric, validation_metric
from distill.protocols import TrainedModel
from distill.virtual import learned
from students.student import Student
from teachers.text.huggingface import HuggingFaceWriter
from teachers.text.sources import too_long


class WrittenValidation:
    """Called with a student, returns the score of its texts under the name that `validation_metric` has for it."""

    def __init__(
        self, references: Mapping[str, Sequence[str]], count: int, tokenizer: PreTrainedTokenizerBase, task: Task
    ) -> None:
        """Take sources with their references; a hash chooses `count` of them, in whatever order they are given."""
        chosen = nsmallest(count, references, key=hash_text)
        self._references = {source: references[source] for source in chosen}
        self._tokenizer = tokenizer
        self._metric = main_metric(task)
        self._name = validation_metric(task, texts=True)
        self._decoding = Decoding(beams=1, max_tokens=task.max_target_length)

    def __call__(self, student: TrainedModel) -> dict[str, float]:
        """Have the student write, each process its part, and score all texts. Sources the model has no positions for
        are left out.
        """
        model = cast(Student, student).model
        sources = list(self._references)
        left_out = {place for place, _ in too_long(sources, self._tokenizer, model.config, learned(model).tokens)}
        sources = [source for place, source in enumerate(sources) if place not in left_out]
        with _as_it_was(model):
            texts = self._write(model, sources)
        return {self._name: text_metrics.value(self._metric, texts, [self._references[source] for source in sources])}

    def _write(self, model: Any, sources: Sequence[str]) -> list[str]:
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        mine = range(rank, len(sources), world)
        writer = HuggingFaceWriter([model], self._tokenizer, "")
        found = writer.generate([sources[place] for place in mine], self._decoding)
        parts = [{mine[place]: completion.texts[0].text for place, completion in found}]
        if world > 1:
            own, parts = parts[0], [{} for _ in range(world)]
            dist.all_gather_object(parts, own)
        texts = {place: text for part in parts for place, text in part.items()}
        return [texts[place] for place in range(len(sources))]


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Put a model back into its modes afterwards: a writer takes it as one that trains no more."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes.items():
            module.training = mode
