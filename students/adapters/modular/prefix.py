"""Learned keys and values before a layer's own (Li and Liang 2021, section 4)."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.attention import learned
from students.adapters.modular.part import Part, Visit


@dataclass(frozen=True)
class HeadSizes:
    """Key–value heads of an attention, and the width of one."""

    heads: int
    width: int


class PrefixNetwork(nn.Module):
    """What all layers' prefixes share while they are made by a network: tanh(W E + b) [P M] of embeddings E [P D]."""

    def __init__(self, tokens: int, embedded: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(tokens, embedded) * 0.02)
        self.inner = nn.Linear(embedded, width)

    def forward(self) -> Tensor:
        """Return the inside [P M]."""
        return torch.tanh(self.inner(self.embeddings))


class Prefix(Part):
    """Keys and values [2 P H A] of one attention: parameters, or a linear map of the shared network's inside.

    They do not pass through the layer's own projections, so no bottleneck of theirs limits what is attended to.
    """

    def __init__(self, tokens: int, sizes: HeadSizes, network: PrefixNetwork | None) -> None:
        super().__init__()
        self.sizes = sizes
        # in a list: it is saved with the tuner, not with each layer
        self._network: list[PrefixNetwork | None] = [network]
        if network is None:
            self.prefix = nn.Parameter(torch.randn(2, tokens, sizes.heads * sizes.width) * 0.02)
        else:
            self.outer = nn.Linear(network.inner.out_features, 2 * sizes.heads * sizes.width)

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        """Return what is attended to [H P A]."""
        network = self._network[0]
        flat = self.prefix if network is None else torch.stack(self.outer(network()).chunk(2, -1))
        key, value = flat.view(2, -1, self.sizes.heads, self.sizes.width).transpose(1, 2)
        return key, value

    def settle(self) -> None:
        """Keep the keys and values themselves: the network that made them is for the training alone (Li and Liang
        2021, section 4.3).
        """
        network = self._network[0]
        if network is None:
            return
        with torch.no_grad():
            self.prefix = nn.Parameter(torch.stack(self.outer(network()).chunk(2, -1)))
        self._network = [None]
        del self.outer

    def entering(self) -> AbstractContextManager[None]:
        """Let the attention inside look at them."""
        return learned(*self.keys_and_values())

    def apply_to(self, visit: Visit) -> None:
        """Leave the output: all happened inside."""
