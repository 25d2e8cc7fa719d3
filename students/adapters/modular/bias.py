"""A bias of one's own beside each bias (BitFit; Ben Zaken et al. 2022)."""

import torch
from torch import nn

from students.adapters.modular.part import Part, Visit


class Bias(Part):
    """h + b: what training the module's own bias from where it was would give, and it can be taken off again."""

    mergeable = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def apply_to(self, visit: Visit) -> None:
        """Add the bias."""
        visit.output = visit.output + self.bias.to(visit.output.dtype)

    def merge_into(self, module: nn.Module, sign: float) -> None:
        """Add it to the module's bias."""
        with torch.no_grad():
            module.bias.add_(self.bias.to(module.bias.dtype), alpha=sign)  # type: ignore[operator,union-attr,arg-type]
