"""How attention is computed where nobody stands between: by SDPA, or by plain products where these are faster."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import create_position_bias_mask, repeat_kv

CPUINFO = Path("/proc/cpuinfo")
SHORT = 128
"""Keys up to which a CPU may attend faster by plain products: SDPA's kernel multiplies many small blocks.

A layer of BERT-base, 32 rows, fp32, one core of an AMD Zen 5, ms: 2.6 against 11.3 at 10 positions, 7.2 : 12.5 at 25,
18 : 28 at 64, 39 : 62 at 128; with 8 rows 52 : 31 at 256. On an Intel Xeon with AMX, where MKL multiplies small blocks
well, 12 heads of 32, 32 rows: fp32 10.4 : 8.2 at 32 positions, 95 : 61 at 128, but bf16 9.9 : 53 and 69 : 170.
"""


def is_causal(module: nn.Module, options: dict[str, Any]) -> bool:
    """Whether a key that comes after its query is hidden where no mask says so."""
    causal = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if causal is None else causal)


def repeated(key: Tensor, query: Tensor) -> Tensor:
    """Return the keys [B H A S] of all heads, turned for a product with queries."""
    return repeat_kv(key, query.size(1) // key.size(1)).transpose(2, 3)


def is_plain(module: nn.Module, mask: Tensor | None, options: dict[str, Any]) -> bool:
    """Whether the scores are all SDPA would compute with: no position bias, soft cap or implicit causal mask."""
    added = options.get("position_bias") is not None or options.get("softcap") is not None
    return not added and (mask is not None or not is_causal(module, options))


def is_short(query: Tensor, key: Tensor, options: dict[str, Any]) -> bool:
    """Whether plain products are faster than SDPA and the scores they hold are small: on a CPU, for short rows.

    With dropout SDPA has no kernel there and takes plain products itself. Its kernel is the faster one where small
    products are fast, but for the gradient in bf16, for which torch has a slow product of its own.
    """
    if key.device.type != "cpu" or key.size(2) > SHORT:
        return False
    return options.get("dropout", 0.0) > 0.0 or not multiplies_small_blocks_well() or _learns_in_bf16(query, key)


def _learns_in_bf16(query: Tensor, key: Tensor) -> bool:
    if not torch.is_grad_enabled() or not (query.requires_grad or key.requires_grad) or query.device.type != "cpu":
        return False
    computed = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    return computed == torch.bfloat16


@cache
def multiplies_small_blocks_well() -> bool:
    """Whether MKL takes its fast routes on this processor, which it does on those of its maker."""
    return CPUINFO.is_file() and "GenuineIntel" in CPUINFO.read_text(encoding="utf-8")


def made_plain(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> tuple[Tensor | None, dict[str, Any]]:
    """Write an implicit causal mask and a position bias out as one mask, where plain products are to take the place of
    SDPA's gradient in bf16. Return that mask, and the options without the bias.
    """
    causal = mask is None and query.size(2) > 1 and is_causal(module, options)
    square = query.size(2) == key.size(2)
    if key.size(2) > SHORT or not _learns_in_bf16(query, key) or (causal and not square):
        return mask, options
    bias = options.get("position_bias")
    if bias is not None:
        return create_position_bias_mask(bias, mask, causal, query, key), {**options, "position_bias": None}
    if causal:
        mask = torch.ones(1, 1, query.size(2), key.size(2), dtype=torch.bool, device=key.device).tril()
    return mask, options


def finish(scores: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Go on from scores [B H T T] to the output [B T H A], so that the product q·k is not paid twice."""
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return average(weights, value, dropout).transpose(1, 2).contiguous()


def average(weights: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Return dropout(weights) @ value.

    On a CPU the mask is kept in bytes: `F.dropout` keeps one of floats for the backward pass, as large as the weights,
    and draws it at half the speed.
    """
    if dropout == 0.0:
        return weights @ value
    if weights.device.type != "cpu":
        return nn.functional.dropout(weights, dropout) @ value
    dropped = torch.rand(weights.shape) < dropout
    return weights.masked_fill(dropped, 0.0) @ (value / (1.0 - dropout))
