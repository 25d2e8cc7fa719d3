"""Linear layers whose products have few shapes.

For each shape of a product in bf16, oneDNN compiles a kernel on CPUs and keeps the last thousand. Batches cut by tokens
hardly ever have the same number of positions twice, and each step compiled its kernels anew: 28 % of the time of a
translation student (1 M weights, 4,096 tokens a step, one core of an Intel Xeon with AMX). With a few rows of zeros
more, the same kernels come back.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CLOSEST = 16
"""Fewest rows from one number of rows to the next."""


def rounded(rows: int) -> int:
    """Return the number of rows that a product of so many is computed with: one of 16 between two powers of 2."""
    step = max(CLOSEST, 1 << max(0, rows.bit_length() - 5))
    return -(-rows // step) * step


def by_few_shapes(product: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Return [... outputs], what a product makes of [... inputs] with rows of zeros up to a rounded number of rows."""
    rows = tensor.flatten(0, -2)
    count, added = len(rows), rounded(len(rows)) - len(rows)
    if added == 0:
        return product(tensor)
    longer = product(torch.cat([rows, rows.new_zeros(added, rows.size(1))]))
    found: Tensor = _First.apply(longer, count)  # type: ignore[no-untyped-call]
    return found.view(*tensor.shape[:-1], found.size(-1))


class _First(torch.autograd.Function):
    """The first rows, where they lie. Unlike a part of a split they may be changed in place, as AdaLoRA does with what
    its layers give; the backward pass is one copy all the same, where that of a slice fills a tensor first.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int) -> Tensor:
        """Return [count C] of [R C]: the same memory, and no view to autograd."""
        ctx.added = len(rows) - count
        first = rows.new_empty(0)
        return first.set_(rows.untyped_storage(), rows.storage_offset(), (count, rows.size(1)), rows.stride())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Put zeros behind."""
        (gradient,) = gradients
        return torch.cat([gradient, gradient.new_zeros(ctx.added, gradient.size(1))]), None


class FewShapes(nn.Linear):
    """A linear layer that computes in bf16 on a CPU with a rounded number of rows."""

    def forward(self, input: Tensor) -> Tensor:
        """Return [... outputs] from [... inputs]."""
        if input.ndim < 2 or not _compiles(input):
            return super().forward(input)
        return by_few_shapes(super().forward, input)


def use_few_shapes(module: nn.Module) -> None:
    """Let the linear layers in a module do so; as anything else they stay what they are."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = FewShapes


def _compiles(tensor: Tensor) -> bool:
    if tensor.device.type != "cpu":
        return False
    computed = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tensor.dtype
    return computed == torch.bfloat16
