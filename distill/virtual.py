"""Take what an adapter learned to put before a row's tokens (prompt tuning, P-tuning), or before every layer's keys (a
cartridge), out of what a model gave; and see to it that a row is answered at its last token all the same.

It stands first. Scores are those before the softmax, so that what is left of them needs no new normalisation: whoever
makes probabilities of them does it over the real keys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, PeftModelForSequenceClassification, PeftType
from torch import Tensor
from transformers import PreTrainedModel

from distill.adapted_model import Model, transformer
from distill.types import Heads, Inside, Outputs


@dataclass(frozen=True)
class Learned:
    """How much an adapter puts before what a model has itself."""

    tokens: int = 0
    """Vectors before the tokens of every row, which take part in all positions there are."""
    keys: int = 0
    """Keys and values before those of every layer that looks back: of the decoder, where there is one."""


def learned(model: Model) -> Learned:
    """Return how much a model's active adapter puts before what the model has itself."""
    return learned_by(model.active_peft_config) if isinstance(model, PeftModel) else Learned()


def learned_by(adapter: PeftConfig) -> Learned:
    """Return how much an adapter puts before what a model has itself, by its configuration."""
    if not adapter.is_prompt_learning:
        return Learned()
    count = int(adapter.num_virtual_tokens)  # type: ignore[attr-defined]
    keys = adapter.peft_type in (PeftType.PREFIX_TUNING, PeftType.CARTRIDGE)
    return Learned(keys=count) if keys else Learned(tokens=count)


def with_tokens(model: Model, input_ids: Tensor, mask: Tensor) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """Return the model itself and what its adapter hands it for tokens [B T]: their vectors [B P+T D] behind the P
    learned ones, and their mask [B P+T]; without such an adapter the model as it is, and the tokens.
    """
    if not isinstance(model, PeftModel) or not (before := learned(model).tokens):
        return cast(PreTrainedModel, model), {"input_ids": input_ids, "attention_mask": mask}
    vectors = cast(Tensor, cast(Any, model).word_embeddings(input_ids))
    first = model.get_prompt(batch_size=len(input_ids)).to(vectors.dtype)
    inputs = {"inputs_embeds": torch.cat((first, vectors), 1)}
    return transformer(model), inputs | {"attention_mask": torch.cat((mask.new_ones(len(mask), before), mask), 1)}


@contextmanager
def answering_at_last(model: Model, mask: Tensor | None) -> Iterator[None]:
    """Let a decoder that classifies take its answer from each row's last token, by the mask [B T] of its tokens.

    It looks for that among token ids. Learned vectors leave it embedded tokens alone, and it takes the last position,
    which is padding in all rows but the longest.
    """
    head, before = getattr(transformer(model), "score", None), learned(model).tokens
    if mask is None or head is None or not before or not isinstance(model, PeftModelForSequenceClassification):
        yield
        return
    last = before + (mask != 0).long().mul(torch.arange(mask.size(1), device=mask.device)).argmax(1)

    def moved(_: object, __: object, logits: Tensor) -> Tensor:
        rows = torch.arange(logits.shape[0], device=logits.device)
        return torch.cat((logits[:, :-1], logits[rows, last.to(logits.device)][:, None]), 1)

    hook = head.register_forward_hook(moved)
    try:
        yield
    finally:
        hook.remove()


def without_learned(outputs: Outputs, found: Learned, *, beside: bool) -> Outputs:
    """Return the outputs of the real positions alone; `beside` says whether a decoder stands beside the encoder."""
    if found.keys and beside:
        return replace(outputs, decoder=_keys(outputs.decoder, found.keys))
    if found.keys:
        own = _keys(outputs.on("encoder"), found.keys)
        return replace(outputs, attentions=own.attentions, relations=own.relations)
    return _without_tokens(outputs, found.tokens, beside=beside) if found.tokens else outputs


def _without_tokens(outputs: Outputs, count: int, *, beside: bool) -> Outputs:
    encoder = _positions(outputs.on("encoder"), count)
    logits = outputs.logits
    if logits is not None and logits.ndim == 3 and not beside:
        logits = logits[:, count:]
    return replace(
        outputs,
        logits=logits,
        hidden_states=encoder.hidden_states,
        attentions=encoder.attentions,
        relations=encoder.relations,
        cross=_keys(outputs.cross, count),
    )


def _positions(inside: Inside, count: int) -> Inside:
    """Cut where every position is one of the encoder: hidden states [B T D], scores [B H T T], heads [B H T A]."""
    return Inside(
        {layer: states[:, count:] for layer, states in inside.hidden_states.items()},
        {layer: scores[..., count:, count:] for layer, scores in inside.attentions.items()},
        {
            layer: Heads(heads.query[:, :, count:], heads.key[:, :, count:], heads.value[:, :, count:])
            for layer, heads in inside.relations.items()
        },
    )


def _keys(inside: Inside, count: int) -> Inside:
    """Cut where keys alone are more: scores [B H U T], keys and values [B H T A]."""
    return Inside(
        inside.hidden_states,
        {layer: scores[..., count:] for layer, scores in inside.attentions.items()},
        {
            layer: Heads(heads.query, heads.key[:, :, count:], heads.value[:, :, count:])
            for layer, heads in inside.relations.items()
        },
    )
