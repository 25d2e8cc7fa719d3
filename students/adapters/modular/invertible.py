"""An invertible map of the embeddings (MAD-X; Pfeiffer et al. 2020, section 3.3), after NICE (Dinh et al. 2015)."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from students.adapters.modular.part import Part, Visit


class Coupling(Part):
    """(a, b) → (a + F(b), b + G(a + F(b))) for the halves a, b of every embedding; its inverse is exact."""

    layered = False

    def __init__(self, width: int, reduction: int, activation: str) -> None:
        super().__init__()
        half = width // 2
        self.halves = (half, width - half)
        self.f = Map(width - half, half, reduction, activation)
        self.g = Map(half, width - half, reduction, activation)

    def apply_to(self, visit: Visit) -> None:
        """Map the embeddings."""
        visit.output = self.forward(visit.output)

    def forward(self, given: Tensor) -> Tensor:
        """Return the mapped [… D]."""
        first, second = given.to(self.f.inner.weight.dtype).split(self.halves, -1)  # type: ignore[no-untyped-call]
        first = first + self.f(second)
        second = second + self.g(first)
        return torch.cat((first, second), -1).to(given.dtype)

    def inverse(self, given: Tensor) -> Tensor:
        """Return what is mapped to the given [… D]."""
        first, second = given.to(self.f.inner.weight.dtype).split(self.halves, -1)  # type: ignore[no-untyped-call]
        second = second - self.g(first)
        first = first - self.f(second)
        return torch.cat((first, second), -1).to(given.dtype)


class Inverse(Part):
    """Undoes the coupling before a module that goes back to the vocabulary; has no weights of its own."""

    layered = False
    undoes = True

    def __init__(self) -> None:
        super().__init__()
        self._coupling: list[Coupling] = []  # in a list: its weights are saved where the embeddings are

    def undo(self, coupling: Coupling) -> None:
        """Take the coupling to undo."""
        self._coupling = [coupling]

    def apply_to(self, visit: Visit) -> None:
        """Run the module on the inverse of its input."""
        visit.repeat(self._coupling[0].inverse(visit.input))


class Map(nn.Module):
    """W φ(V x + v) + w, from one half to the other."""

    def __init__(self, width: int, out: int, reduction: int, activation: str) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width // reduction)
        self.outer = nn.Linear(width // reduction, out)
        self.activation = ACT2FN[activation]
        for linear in (self.inner, self.outer):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, given: Tensor) -> Tensor:
        """Map [… D/2]."""
        mapped: Tensor = self.outer(self.activation(self.inner(given)))
        return mapped
