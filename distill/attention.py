"""The attention function that transformers calls while a model is looked into, or attends to learned keys."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distill.attention_routes import finish, is_causal, is_plain, is_short, made_plain, repeated
from distill.errors import ModelError

IMPLEMENTATION = "distill"


class Looker(ABC):
    """Who looks into a forward pass."""

    @abstractmethod
    def sees(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Take note of a layer, and say whether its scores are wanted."""

    @abstractmethod
    def keep(self, scores: Tensor) -> None:
        """Take the scores [B H T S] of the layer that was seen last."""


@dataclass
class _Learned:
    """Keys and values [H P A], and whether an attention looked at them."""

    heads: tuple[Tensor, Tensor]
    seen: bool = False


_active: ContextVar[Looker | None] = ContextVar("who looks", default=None)
_learned: ContextVar["_Learned | None"] = ContextVar("learned keys and values", default=None)


@contextmanager
def looking(looker: Looker) -> Iterator[None]:
    """Let somebody look into the forward passes inside."""
    token = _active.set(looker)
    try:
        yield
    finally:
        _active.reset(token)


@contextmanager
def learned(key: Tensor, value: Tensor) -> Iterator[None]:
    """Let the attention inside attend to P more keys and values [H P A] before its own (prefix tuning), beside those
    that it is to attend to already.

    Whoever looks sees the layer as it is without them: scores are those of its own keys. Raise ModelError where the
    attention is none of transformers' functions: the learned keys would do nothing, without a word.
    """
    outer = _learned.get()
    held = _Learned((key, value) if outer is None else (_joined(outer, 0, key), _joined(outer, 1, value)))
    token = _learned.set(held)
    try:
        yield
    finally:
        _learned.reset(token)
    if outer is not None:
        outer.seen = held.seen
    if not held.seen:
        raise ModelError("prefix: this model's attention does not look at learned keys and values; use another adapter")


def _joined(outer: _Learned, which: int, own: Tensor) -> Tensor:
    return torch.cat((outer.heads[which], own), 1)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend by SDPA, or where that is faster by plain products; keep what was asked for of a layer somebody looks at.

    transformers calls this in place of its own functions, with their signature (query, key, value: [B H T A]).
    """
    looker = _active.get()
    wanted = looker is not None and looker.sees(query, key, value)
    learned = _learned.get()
    if learned is not None:
        if looker is not None and wanted:
            looker.keep((query * (options.get("scaling") or query.size(-1) ** -0.5)) @ repeated(key, query))
        learned.seen = True
        key, value, attention_mask, options = _lengthened(
            module, learned.heads, (query, key, value), attention_mask, options
        )
        looker, wanted = None, False
    attention_mask, options = made_plain(module, query, key, attention_mask, options)
    plain = is_plain(module, attention_mask, options)
    if not wanted and not (plain and is_short(query, key, options)):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scale = options.get("scaling") or query.size(-1) ** -0.5
    scores = (query * scale) @ repeated(key, query)
    if looker is not None and wanted:
        looker.keep(scores)
    if not plain:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    full_value = repeat_kv(value, query.size(1) // value.size(1))
    return finish(scores, full_value, attention_mask, options.get("dropout", 0.0)), None


def _lengthened(
    module: nn.Module,
    learned: tuple[Tensor, Tensor],
    heads: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]:
    """Return keys, values, mask and options with the learned keys put first; every query may look at them."""
    query, key, value = heads
    count = learned[0].size(1)
    more = [tensor.to(key.dtype).unsqueeze(0).expand(key.size(0), -1, -1, -1) for tensor in learned]
    if mask is None and query.size(2) > 1 and is_causal(module, options):
        behind = key.size(2) - query.size(2)  # positions of a cache
        mask = torch.ones(1, 1, query.size(2), key.size(2), dtype=torch.bool, device=key.device).tril(behind)
    if mask is not None:
        mask = nn.functional.pad(mask[..., : key.size(2)], (count, 0), value=True if mask.dtype == torch.bool else 0.0)
    bias = options.get("position_bias")
    if bias is not None:
        options = {**options, "position_bias": nn.functional.pad(bias, (count, 0))}
    return torch.cat((more[0], key), 2), torch.cat((more[1], value), 2), mask, {**options, "is_causal": False}


def _mask(**options: Any) -> Tensor | None:
    """Make the masks of SDPA; on the meta device, where no mask can be looked at, none is found superfluous."""
    if torch.device(options["device"]).type == "meta":
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask: Tensor | None = sdpa_mask(**options)
    return mask


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _mask)
