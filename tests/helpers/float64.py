"""Models computed in float64 throughout, to be compared beyond the order in which they make the same sums."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class _Kept(TorchDispatchMode):
    """Lets float64 be float64 where a model goes to float32 by itself: in softmax, RMS normalisations, rotations."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.ops.aten._to_copy.default and given.get("dtype") == torch.float32:
            given["dtype"] = torch.float64
        return func(*args, **given)


@contextmanager
def float64(model: nn.Module) -> Iterator[None]:
    """Let a model in fp32 compute in float64; its weights are the same, and in fp32 again afterwards."""
    model.double()
    try:
        with torch.no_grad(), _Kept():
            yield
    finally:
        model.float()
