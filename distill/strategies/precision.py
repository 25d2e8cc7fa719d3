"""What products are computed in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.plugins import DeepSpeedPrecision
from torch import nn

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that products are computed in, by `training.precision`; none: that of the weights."""
LIGHTNING = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""What Lightning calls it."""


class ZeroPrecision(DeepSpeedPrecision):
    """What DeepSpeed's engine does around its own forward pass, around every other pass too: the autocast of products,
    and in stage 3 weights put together wherever they are used.
    """

    def __init__(self, dtype: torch.dtype | None, device: str) -> None:
        """Take the type to compute products in, none for that of the weights, and the kind of device."""
        super().__init__("32-true")
        self._autocast = torch.autocast(device, dtype=dtype, enabled=dtype is not None)
        self.partitioned: nn.Module | None = None
        """The module whose weights stage 3 has dealt out."""

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Surround a forward pass."""
        parts = [] if self.partitioned is None else [part._parameters for part in self.partitioned.modules()]
        with self._autocast:
            for weights in parts:  # as the engine does: a layer may use what another one holds
                weights._in_forward = True  # type: ignore[attr-defined]
            try:
                yield
            finally:
                for weights in parts:
                    weights._in_forward = False  # type: ignore[attr-defined]
