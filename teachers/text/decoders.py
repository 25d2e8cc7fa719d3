"""transformers models as decoders that step: encoder-decoders, decoder-only models, ensembles of them."""

import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, LogitsProcessorList
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from distill.adapted_model import transformer
from distill.virtual import learned, with_tokens
from teachers.text.beam import Decoder


def has_keys(model: Any) -> bool:
    """Whether a model goes on from keys and values of each token, all of it: a state that is not in our cache would be
    left behind where hypotheses are reordered, without a word.
    """
    inner: Any = transformer(model)
    if inner._is_stateful or "past_key_values" not in inspect.signature(type(inner).forward).parameters:
        return False
    return all(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=inner.config).layers)


class _Model(Decoder):
    """A transformers model that feeds each sentence once at first, and each row from then on."""

    def __init__(self, model: Any, cache: Any, attention_mask: Tensor, beams: int) -> None:
        self._model = model
        self._cache = cache
        self._mask = attention_mask
        self._beams = beams
        self._spread = False
        """Whether sentences have become rows."""

    def step(self, tokens: Tensor) -> Tensor:
        """Feed the new tokens: the whole prompt at first."""
        inputs = self._inputs(tokens[:, -1:]) if self._spread else self._first(tokens[:: self._beams])
        output = self._model(**inputs, past_key_values=self._cache, use_cache=True, return_dict=True)
        log_probs: Tensor = output.logits[:, -1].float().log_softmax(-1)
        return log_probs if self._spread else log_probs.repeat_interleave(self._beams, 0)

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        """Reorder what belongs to rows, cut what belongs to sentences."""
        self._select(rows if self._spread else rows // self._beams, sentences)
        self._spread = True

    def _first(self, prompts: Tensor) -> dict[str, Any]:
        """Return what the model takes beside its cache, to begin with prompts [S T]."""
        return self._inputs(prompts)

    @abstractmethod
    def _inputs(self, new: Tensor) -> dict[str, Any]:
        """Return what the model takes beside its cache, to go on with tokens [R T]."""

    @abstractmethod
    def _select(self, rows: Tensor, sentences: Tensor | None) -> None:
        """As `select`, with the rows that are in the cache."""


class EncoderDecoder(_Model):
    """A translation or summarisation model over sources that are encoded once.

    Keys and values of the source are moved only when sentences leave: `generate` reorders them in every step.
    """

    def __init__(self, model: Any, input_ids: Tensor, attention_mask: Tensor, beams: int) -> None:
        """Encode sources [S T], padded on the right; `model` may carry adapters."""
        model, inputs = with_tokens(model, input_ids, attention_mask)
        super().__init__(model, EncoderDecoderCache(DynamicCache(), DynamicCache()), inputs["attention_mask"], beams)
        self._states = model.get_encoder()(**inputs, return_dict=True).last_hidden_state

    def _inputs(self, new: Tensor) -> dict[str, Any]:
        encoded = BaseModelOutput(last_hidden_state=self._states)
        return {"encoder_outputs": encoded, "attention_mask": self._mask, "decoder_input_ids": new}

    def _select(self, rows: Tensor, sentences: Tensor | None) -> None:
        self._cache.self_attention_cache.batch_select_indices(rows)
        if sentences is None and self._spread:
            return
        held = self._rows_of(sentences)
        self._cache.cross_attention_cache.batch_select_indices(held)
        self._mask, self._states = self._mask[held], self._states[held]

    def _rows_of(self, sentences: Tensor | None) -> Tensor:
        """Return where the K rows of each sentence that stays (none: of all) are held."""
        if not self._spread:
            stay = torch.arange(len(self._mask), device=self._mask.device) if sentences is None else sentences
            return stay.repeat_interleave(self._beams)
        assert sentences is not None
        return (sentences[:, None] * self._beams + torch.arange(self._beams, device=sentences.device)).flatten()


class DecoderOnly(_Model):
    """A language model over prompts that are padded on the left."""

    def __init__(self, model: Any, attention_mask: Tensor, beams: int) -> None:
        """Take the mask [S P] of the prompts; `model` may carry adapters."""
        super().__init__(transformer(model) if learned(model).tokens else model, DynamicCache(), attention_mask, beams)
        self._adapted = model

    def _first(self, prompts: Tensor) -> dict[str, Any]:
        _, inputs = with_tokens(self._adapted, prompts, self._mask)
        self._mask = inputs["attention_mask"]
        return {**inputs, "position_ids": self._places()}

    def _inputs(self, new: Tensor) -> dict[str, Any]:
        return {"input_ids": new, "attention_mask": self._mask, "position_ids": self._places()[:, -1:]}

    def _places(self) -> Tensor:
        return (self._mask.cumsum(-1) - 1).clamp_(min=0)

    def _select(self, rows: Tensor, sentences: Tensor | None) -> None:
        self._cache.batch_select_indices(rows)
        self._mask = torch.cat([self._mask[rows], self._mask.new_ones(len(rows), 1)], -1)


class Ensemble(Decoder):
    """Models with one vocabulary that speak with one voice: the mean of their probabilities."""

    def __init__(self, members: Sequence[Decoder]) -> None:
        """Take at least one decoder."""
        self._members = tuple(members)

    def step(self, tokens: Tensor) -> Tensor:
        """Return log (1/n Σ p)."""
        said = torch.stack([member.step(tokens) for member in self._members])
        return said.logsumexp(0) - math.log(len(self._members))

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        """Pass on."""
        for member in self._members:
            member.select(rows, sentences)


class Constrained(Decoder):
    """A decoder under the rules of a generation configuration: forced and forbidden tokens, repetitions, lengths."""

    def __init__(
        self, decoder: Decoder, rules: Sequence[LogitsProcessorList], limits: Tensor, last: Tensor | None, beams: int
    ) -> None:
        """Take transformers' rules, of all sentences or one list for each; `last` [E] are tokens forced where a row [R]
        reaches its limit, prompt included.
        """
        self._decoder = decoder
        self._rules = rules
        self._limits = limits.repeat_interleave(beams)
        self._last = last
        self._beams = beams

    def step(self, tokens: Tensor) -> Tensor:
        """Apply the rules to the log-probabilities, as transformers does."""
        log_probs = self._ruled(tokens, self._decoder.step(tokens))
        if self._last is None:
            return log_probs
        at_limit = (tokens.shape[1] + 1 >= self._limits)[:, None]
        forced = torch.full_like(log_probs, -torch.inf).index_fill_(1, self._last, 0.0)
        return torch.where(at_limit, forced, log_probs)

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        """Pass on."""
        self._limits = self._limits[rows]
        if sentences is not None and len(self._rules) > 1:
            self._rules = [self._rules[place] for place in sentences.tolist()]
        self._decoder.select(rows, sentences)

    def _ruled(self, tokens: Tensor, log_probs: Tensor) -> Tensor:
        count = len(self._rules)
        parts = zip(self._rules, tokens.chunk(count), log_probs.chunk(count), strict=True)
        ruled: list[Tensor] = [rules(rows, said) for rules, rows, said in parts]  # type: ignore[arg-type]
        return ruled[0] if count == 1 else torch.cat(ruled)
