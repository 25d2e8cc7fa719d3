"""Text from transformers models, by our own beam search: ensembles and models with adapters too."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
)

from configs.decoding import Decoding
from distill.data.buckets import cut_by_tokens
from distill.errors import ModelError
from distill.protocols import TextTeacher
from distill.types import Completion, Text
from distill.virtual import learned
from teachers.text.beam import Decoder, Hypothesis, Search, search
from teachers.text.decoders import Constrained, DecoderOnly, EncoderDecoder, Ensemble, has_keys
from teachers.text.sources import encode, ends, generation_of, language_id, start_token

_OF_SOURCES = (EncoderNoRepeatNGramLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor)
"""Rules that hold the sources: one of each sentence, so that it leaves with it, and without padding."""


@dataclass(frozen=True)
class _Batch:
    """Sources of similar length."""

    places: list[int]
    """Where each stands among the prompts"""
    input_ids: Tensor
    """[S T]"""
    attention_mask: Tensor
    """[S T]"""
    limits: list[int]
    """[S] tokens each text may have"""


class HuggingFaceWriter(TextTeacher):
    """One model, or several that speak with one voice."""

    def __init__(
        self,
        models: Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: str,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        """Take models of one kind and one vocabulary; the first one's generation configuration rules.

        `autocast` is the type to compute products in, none where that is the weights' own. Raises ModelError for
        models that cannot speak with one voice.
        """
        for model in models:
            check_searchable(model)
        self._models = [model.eval().requires_grad_(False) for model in models]
        self._tokenizer = tokenizer
        self._fingerprint = fingerprint
        self._autocast = autocast
        self._config = self._models[0].config
        self._generation = generation_of(self._models[0], tokenizer)
        for model in self._models[1:]:
            check_same(self._config, model.config)

    @property
    def fingerprint(self) -> str:
        """The digest of the models' files."""
        return self._fingerprint

    def describe(self) -> str:
        """Say which models write."""
        names = ", ".join(str(model.config.name_or_path or model.config.model_type) for model in self._models)
        return f"transformers: {names}" if len(self._models) == 1 else f"transformers, an ensemble: {names}"

    def rules(self, decoding: Decoding) -> LogitsProcessorList:
        """Return what changes the first model's probabilities, but for an end that is forced at the limit."""
        settings = self._settings(decoding, 64)
        settings.forced_eos_token_id = None
        return self._rules(settings, torch.ones(1, 1, dtype=torch.long, device=self._models[0].device), 1)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], decoding: Decoding) -> Iterator[tuple[int, Completion]]:
        """Yield the place and the texts of each prompt, batch by batch of similar length.

        Raises DataError for a prompt that is empty or longer than the model's positions: nothing is cut.
        """
        for batch in self._batches(prompts, decoding):
            prompt = self._start(batch)
            settings = self._settings(decoding, prompt.shape[1] + max(batch.limits))
            how = Search(decoding.beams, ends(settings), settings.length_penalty)
            with torch.autocast(prompt.device.type, self._autocast, enabled=self._autocast is not None):
                found = search(self._decoder(batch, prompt, settings, how), prompt, batch.limits, how)
            for place, limit, hypotheses in zip(batch.places, batch.limits, found, strict=True):
                # an end that is forced at the limit tells nothing of whether the text is whole
                free = limit if settings.forced_eos_token_id is None else limit - 1
                yield place, self._completion(hypotheses[: decoding.hypotheses], how, free)

    def _batches(self, prompts: Sequence[str], decoding: Decoding) -> Iterator[_Batch]:
        before = max(learned(model).tokens for model in self._models)
        sources = encode(prompts, self._tokenizer, self._config, decoding, before)
        lengths = np.array([len(source.ids) for source in sources], dtype=np.int64)
        side = "right" if self._config.is_encoder_decoder else "left"
        for rows in cut_by_tokens(np.arange(len(sources)), lengths, decoding.tokens_per_batch):
            alike = [sources[row] for row in rows]
            padded = self._tokenizer.pad(
                {"input_ids": [source.ids for source in alike]}, padding_side=side, return_tensors="pt"
            ).to(self._models[0].device)
            limits = [source.limit for source in alike]
            yield _Batch([one.place for one in alike], padded["input_ids"], padded["attention_mask"], limits)

    def _start(self, batch: _Batch) -> Tensor:
        """Return what the texts of a batch start with, [S P]."""
        if not self._config.is_encoder_decoder:
            return batch.input_ids
        start = start_token(self._models[0], self._tokenizer)
        return torch.full((len(batch.places), 1), start, device=batch.input_ids.device)

    def _settings(self, decoding: Decoding, max_length: int) -> GenerationConfig:
        """Return the first model's generation configuration under what the run asks for."""
        model, own = self._models[0], copy.deepcopy(self._generation)
        own.update(num_beams=decoding.beams, do_sample=False, max_length=max_length, max_new_tokens=None)
        settings: GenerationConfig = model._prepare_generation_config(own)[0]
        if decoding.length_penalty is not None:
            settings.length_penalty = decoding.length_penalty
        if decoding.no_repeat_ngram is not None:
            settings.no_repeat_ngram_size = decoding.no_repeat_ngram
        if decoding.language is not None:
            settings.forced_bos_token_id = language_id(decoding.language, self._tokenizer)
        model._prepare_special_tokens(settings, device=model.device)
        return settings

    def _decoder(self, batch: _Batch, prompt: Tensor, settings: GenerationConfig, how: Search) -> Decoder:
        ids, mask = batch.input_ids, batch.attention_mask
        members: list[Decoder] = [
            EncoderDecoder(model, ids, mask, how.beams)
            if self._config.is_encoder_decoder
            else DecoderOnly(model, mask, how.beams)
            for model in self._models
        ]
        decoder = members[0] if len(members) == 1 else Ensemble(members)
        last = settings.forced_eos_token_id
        settings = copy.deepcopy(settings)
        settings.forced_eos_token_id = None  # each sentence has a limit of its own: `Constrained` knows it
        rules = [self._rules(settings, ids[:1], prompt.shape[1])]
        if any(isinstance(rule, _OF_SOURCES) for rule in rules[0]):
            bare = [row[kept.bool()][None] for row, kept in zip(ids, mask, strict=True)]
            rules = [self._rules(settings, source, prompt.shape[1]) for source in bare]
        if not rules[0] and last is None:
            return decoder
        limits = torch.tensor(batch.limits, device=prompt.device) + prompt.shape[1]
        forced = None if last is None else torch.tensor(last, device=prompt.device).view(-1)
        return Constrained(decoder, rules, limits, forced, how.beams)

    def _rules(self, settings: GenerationConfig, ids: Tensor, length: int) -> LogitsProcessorList:
        """Return what changes the probabilities of texts for sources [S T] that begin with `length` tokens."""
        found: LogitsProcessorList = self._models[0]._get_logits_processor(
            settings, input_ids_seq_length=length, encoder_input_ids=ids, device=ids.device, model_kwargs={}
        )
        return found

    def _completion(self, hypotheses: Sequence[Hypothesis], how: Search, free: int) -> Completion:
        """Return texts, of which those of up to `free` tokens chose their end themselves."""
        texts = self._tokenizer.batch_decode([list(one.tokens) for one in hypotheses], skip_special_tokens=True)
        return Completion(
            tuple(
                Text(text, one.tokens, one.score, one.tokens[-1] in how.ends and len(one.tokens) <= free)
                for text, one in zip(texts, hypotheses, strict=True)
            )
        )


def check_searchable(model: Any) -> None:
    """Raise ModelError for a model without keys and values to go on from, and for one with learned keys, or learned
    vectors before what is written: peft gives them anew in every step, and a search would read them after each token.
    """
    if not has_keys(model):
        raise ModelError(
            f"{model.config.name_or_path or model.config.model_type}: goes on from a state of its own or from none "
            f"({model.config.model_type}), which cannot be searched with here; models that keep keys and values can"
        )
    found = learned(model)
    beside = model.config.is_encoder_decoder and found.tokens
    if found.keys or (beside and model.active_peft_config.num_transformer_submodules != 1):
        what = "keys" if found.keys else "vectors before what is written"
        raise ModelError(
            f"{model.config.name_or_path}: its adapter learned {what}, which cannot be searched with; adapters that "
            "change weights or layers, and learned vectors before what is read, can"
        )


def check_same(first: Any, other: Any) -> None:
    """Compare the configurations of two models of an ensemble. Raise ModelError where they cannot write as one."""
    for name in (
        "is_encoder_decoder",
        "vocab_size",
        "decoder_start_token_id",
        "eos_token_id",
        "max_position_embeddings",
        "max_encoder_position_embeddings",
        "max_decoder_position_embeddings",
    ):
        if getattr(first, name, None) != getattr(other, name, None):
            raise ModelError(
                f"teachers of an ensemble must agree in {name}: "
                f"{getattr(first, name, None)} and {getattr(other, name, None)}"
            )
