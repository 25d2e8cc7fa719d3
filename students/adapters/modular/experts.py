"""A small mixture of experts after the last normalisation."""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from students.adapters.modular.part import Part, Visit


class Experts(Part):
    """h + (1 − ρ) Σₑ softmaxₑ(G h) · Uₑ φ(Dₑ h): all experts run, the gate weighs them; ρ mixes the original in."""

    layered = False

    def __init__(self, width: int, experts: int, size: int, activation: str, original: float) -> None:
        super().__init__()
        self.experts = experts
        self.original = original
        self.activation = ACT2FN[activation]
        self.gate = nn.Linear(width, experts)
        self.down = nn.Linear(width, experts * size)
        self.up = nn.Linear(experts * size, width)
        nn.init.zeros_(self.up.weight)  # begins as the original
        nn.init.zeros_(self.up.bias)

    def apply_to(self, visit: Visit) -> None:
        """Add the mixture."""
        visit.output = visit.output + (1.0 - self.original) * self.mixture(visit.output)

    def mixture(self, given: Tensor) -> Tensor:
        """Return Σₑ gₑ(h) · Uₑ φ(Dₑ h) [… D]."""
        held = given.to(self.gate.weight.dtype)
        gates = self.gate(held).softmax(-1)
        inside = self.activation(self.down(held)).unflatten(-1, (self.experts, -1))
        mixed: Tensor = self.up((inside * gates.unsqueeze(-1)).flatten(-2))
        return mixed.to(given.dtype)
