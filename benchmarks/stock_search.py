"""transformers' own beam search, called as one calls it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.clock import Lap, Stopwatch
from configs.decoding import Decoding
from distill.models import Loaded

BATCH = 32
"""Sentences `generate` is given at a time."""
NBest = list[tuple[list[str], list[float]]]
"""Of each sentence the texts and their scores, the best first."""


class Generate:
    """`generate(num_beams=K, early_stopping=True)` over batches of sentences, padded to the longest."""

    def __init__(self, loaded: Loaded, sentences: Sequence[str], decoding: Decoding, *, by_length: bool) -> None:
        """Take sentences in their order, or the shortest first."""
        self._model: Any = loaded.model.eval()
        self._tokenizer = loaded.tokenizer
        self._sentences = sentences
        self._decoding = decoding
        lengths = [len(ids) for ids in loaded.tokenizer(list(sentences))["input_ids"]]
        places = range(len(sentences))
        self._order = sorted(places, key=lengths.__getitem__) if by_length else list(places)

    def n_best(self) -> NBest:
        """Return all hypotheses with their scores."""
        kept = self._decoding.beams
        found: dict[int, tuple[list[str], list[float]]] = {}
        for places, written in self._written(kept, scores=True):
            texts, scores = self._texts(written), written.sequences_scores.tolist()
            for at, place in enumerate(places):
                found[place] = texts[at * kept : (at + 1) * kept], scores[at * kept : (at + 1) * kept]
        return [found[place] for place in range(len(self._sentences))]

    def lap(self, _: int) -> Lap:
        """Write the best text of every sentence."""
        watch = Stopwatch()
        for _, written in self._written(1, scores=False):
            self._texts(written)
        return Lap(*watch.seconds(), float(len(self._sentences)))

    @torch.inference_mode()
    def _written(self, kept: int, *, scores: bool) -> Iterator[tuple[list[int], Any]]:
        for start in range(0, len(self._order), BATCH):
            places = self._order[start : start + BATCH]
            inputs = self._tokenizer([self._sentences[place] for place in places], padding=True, return_tensors="pt")
            yield (
                places,
                self._model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    num_beams=self._decoding.beams,
                    num_return_sequences=kept,
                    early_stopping=True,
                    do_sample=False,
                    max_new_tokens=self._decoding.max_tokens,
                    max_length=None,
                    output_scores=scores,
                    return_dict_in_generate=True,
                ),
            )

    def _texts(self, written: Any) -> list[str]:
        found: list[str] = self._tokenizer.batch_decode(written.sequences, skip_special_tokens=True)
        return found
