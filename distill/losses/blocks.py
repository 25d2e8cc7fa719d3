"""How the work of self-attention relations is cut, so that it stays in the cache and leaves padding out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from distill.losses.closed_form import FLOOR
from distill.losses.reduction import blank, upcast

CPU_BLOCK = 1 << 17
"""Query–key pairs times relation heads computed at once on a CPU: what one core's cache holds."""
GPU_BLOCK = 1 << 26
"""The same on a GPU: enough to keep it busy, 256 MiB a buffer."""


@dataclass(frozen=True)
class Block:
    """E examples, n of their tokens and r of their relation heads, related at once as P = E·r products.

    Inside, states are [P d n]: with the short width d first the products with n×n matrices are several times faster.
    """

    examples: slice
    tokens: slice | Tensor
    heads: slice
    keep: Tensor | None = None
    """[E n]; None where every token counts."""

    def take(self, states: Tensor) -> Tensor:
        """Return states [B T R d] as [P d n]. Masked tokens are zero: as queries they relate alike on both sides."""
        picked = upcast(states[self.examples, self.tokens, self.heads])
        return blank(picked, self.keep).permute(0, 2, 3, 1).flatten(0, 1)

    def logits(self, taken: list[Tensor]) -> Tensor:
        """Return aᵀ·b/√d [P n n], FLOOR at masked keys; taken is a and b, or the one tensor that is both."""
        a, b = taken[0], taken[-1]
        logits = torch.bmm((a * (1.0 / math.sqrt(a.shape[1]))).transpose(1, 2), b)
        if self.keep is None:
            return logits
        off = ~self.keep.bool()[:, None, None]
        return logits.view(off.shape[0], -1, *logits.shape[1:]).masked_fill(off, FLOOR).flatten(0, 1)

    def give(self, states: Tensor, gradient: Tensor) -> None:
        """Write a gradient [P d n] to its places in states [B T R d]."""
        examples = states[self.examples].shape[0]
        by_example = gradient.view(examples, -1, *gradient.shape[1:])
        states[self.examples, self.tokens, self.heads] = by_example.permute(0, 3, 1, 2)


def blocks(mask: Tensor, heads: int) -> Iterator[Block]:
    """Cut mask [B T] times `heads` relation heads as suits the device."""
    return by_length(mask, heads, CPU_BLOCK) if mask.device.type == "cpu" else by_rows(mask, heads, GPU_BLOCK)


def by_length(mask: Tensor, heads: int, size: int) -> Iterator[Block]:
    """Yield blocks without masked tokens: of examples padded on the right to one length, of any other one by itself."""
    keep = mask.bool()
    counts = keep.sum(1)
    gaps = (torch.arange(keep.shape[1]) < counts[:, None]).ne(keep).any(1).tolist()
    keys = [
        (length, place if gap else -1) for place, (length, gap) in enumerate(zip(counts.tolist(), gaps, strict=True))
    ]
    start = 0
    for (length, place), run in groupby(keys):
        stop = start + len(list(run))
        tokens = slice(0, length) if place < 0 else keep[place].nonzero().squeeze(1)
        if length:
            for examples, chosen in _cut(range(start, stop), length, heads, size):
                yield Block(examples, tokens, chosen)
        start = stop


def by_rows(mask: Tensor, heads: int, size: int) -> Iterator[Block]:
    """Yield blocks of whole rows with their masks; no length is asked for, for which a GPU would make the host wait."""
    for examples, chosen in _cut(range(mask.shape[0]), mask.shape[1], heads, size):
        yield Block(examples, slice(None), chosen, mask[examples])


def _cut(examples: range, length: int, heads: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of examples and of heads: at most `size` relations each, or one head of one example."""
    step = min(heads, max(1, size // length**2))
    stride = max(1, size // (length**2 * step))
    for first in range(examples.start, examples.stop, stride):
        for head in range(0, heads, step):
            yield slice(first, min(first + stride, examples.stop)), slice(head, head + step)
