"""Text from CTranslate2: the fastest engine for one encoder-decoder, once it is shown to be the same model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from transformers import PreTrainedTokenizerBase

from configs.decoding import Decoding
from distill.errors import ModelError
from distill.files import digest
from distill.protocols import TextTeacher
from distill.types import Completion, Text
from teachers.text.convert import convert, pieces
from teachers.text.forced import forced_log_probs
from teachers.text.sources import Source, encode, ends, generation_of, language_id, start_token

GATE = 1e-3
"""Nats by which the log-probability of a text may differ from the transformers model's."""
PROBES = 32


@dataclass(frozen=True)
class Parity:
    """How far the converted model is from the one it was made from."""

    texts: int
    worst: float
    """Largest |Δ log p| of a text, nats"""

    @property
    def holds(self) -> bool:
        """Whether it is the same model."""
        return self.worst < GATE


class CTranslate2Writer(TextTeacher):
    """A converted model."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: str,
        folder: Path,
        *,
        compute_type: str = "float32",
        stored: str | None = None,
        device: str = "cpu",
        threads: int = 0,
    ) -> None:
        """Convert a model into `folder`, and load it to compute in `compute_type`.

        The weights are `stored` in fp32, or as CTranslate2 calls it (`int8`); 0 threads are CTranslate2's own number.
        """
        self._tokenizer = tokenizer
        self._pieces = pieces(model, tokenizer)
        self._ids = {piece: place for place, piece in enumerate(self._pieces)}
        self._config = model.config
        self._settings = generation_of(model, tokenizer)
        self._ends = [self._pieces[one] for one in ends(self._settings)]
        self._fingerprint = digest(fingerprint, "ctranslate2", ctranslate2.__version__, compute_type)
        self._name = str(model.config.name_or_path or model.config.model_type)
        self._compute_type = compute_type
        self._folder = folder
        convert(model, tokenizer, folder, quantization=stored)
        place = torch.device(device)
        self._translator = ctranslate2.Translator(
            str(folder),
            device=place.type,
            device_index=place.index or 0,
            compute_type=compute_type,
            intra_threads=threads,
        )

    @property
    def fingerprint(self) -> str:
        """The digest of the model's files, the engine's version and what it computes in."""
        return self._fingerprint

    def describe(self) -> str:
        """Say which model writes, and how."""
        return f"CTranslate2 ({self._compute_type}): {self._name}"

    def generate(self, prompts: Sequence[str], decoding: Decoding) -> Iterator[tuple[int, Completion]]:
        """Yield the place and the texts of each prompt.

        Raises DataError for a prompt that is empty or longer than the model's positions: nothing is cut.
        """
        sources = encode(prompts, self._tokenizer, self._config, decoding)
        for limit, alike in groupby(sorted(sources, key=lambda source: source.limit), lambda source: source.limit):
            batch = list(alike)
            for source, result in zip(batch, self._translate(batch, limit, decoding), strict=True):
                yield source.place, self._completion(result)

    def _translate(self, batch: list[Source], limit: int, decoding: Decoding) -> list[Any]:
        penalty, ngram = decoding.length_penalty, decoding.no_repeat_ngram
        own_penalty, own_ngram = self._settings.length_penalty, self._settings.no_repeat_ngram_size
        first = self._settings.forced_bos_token_id
        if decoding.language is not None:
            first = language_id(decoding.language, self._tokenizer)
        prefix = None if first is None else [[self._pieces[first]]] * len(batch)
        found: list[Any] = self._translator.translate_batch(
            [self._named(source.ids) for source in batch],
            target_prefix=prefix,
            beam_size=decoding.beams,
            num_hypotheses=decoding.hypotheses,
            length_penalty=penalty if penalty is not None else own_penalty if own_penalty is not None else 1.0,
            no_repeat_ngram_size=ngram or own_ngram or 0,
            max_decoding_length=limit,
            end_token=self._ends,
            min_decoding_length=0,  # by default it masks the end token at first, and so changes all scores
            max_input_length=0,
            max_batch_size=decoding.tokens_per_batch,
            batch_type="tokens",
            return_scores=True,
            return_end_token=True,
        )
        return found

    def _completion(self, result: Any) -> Completion:
        texts = []
        for tokens, score in zip(result.hypotheses, result.scores, strict=True):
            ids = [self._ids[token] for token in tokens]
            text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
            texts.append(Text(text, tuple(ids), float(score), bool(tokens) and tokens[-1] in self._ends))
        return Completion(tuple(texts))

    def _named(self, ids: Sequence[int]) -> list[str]:
        return [self._pieces[one] for one in ids]

    def parity(self, model: Any, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Parity:
        """Compare the log-probabilities of up to `PROBES` texts, in fp32 on both sides.

        `targets` end with the end token. Whatever the engine computes in later: a wrong conversion shows here.
        """
        xs, ys = list(sources)[:PROBES], list(targets)[:PROBES]
        exact = ctranslate2.Translator(str(self._folder), device="cpu", compute_type="float32")
        scored = exact.score_batch([self._named(x) for x in xs], [self._named(y)[:-1] for y in ys], max_input_length=0)
        theirs = forced_log_probs(model, xs, ys, start_token(model, self._tokenizer))
        gaps = [abs(sum(one.log_probs) - float(torch.sum(two))) for one, two in zip(scored, theirs, strict=True)]
        return Parity(len(gaps), max(gaps, default=0.0))

    def check(self, model: Any, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Parity:
        """Return the parity. Raises ModelError where it does not hold."""
        found = self.parity(model, sources, targets)
        if not found.holds:
            raise ModelError(
                f"engine: {self.describe()} is not the model it was made from: log p of {found.texts} texts differs by "
                f"up to {found.worst:.3g} nats, {GATE:g} are allowed; use `huggingface`"
            )
        return found
