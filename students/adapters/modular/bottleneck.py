"""Small feed-forward networks: f(x) = s · W_up φ(W_down x + b_down) + s · b_up."""

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from students.adapters.modular.part import Part, Visit

Form = Literal["output", "norm", "stream", "parallel"]


class Network(Part):
    """A part that computes a change f(x) of a hidden state, and where it enters.

    `output`: h + f(h), with h what the module gave. `norm`, around a normalisation LN that follows a residual:
    LN(x + f(LN(x))), with x its input; of several adapters each takes what the one before left of x (Pfeiffer et al.
    2021, figure 3). `stream`: h + f(h + x), with x what h will be added to: the same where normalisations come first.
    `parallel`: h + f(x) (He et al. 2022, section 4.3).
    """

    form: Form

    @abstractmethod
    def change(self, given: Tensor) -> Tensor:
        """Return f(x) [… D] in the type of x."""

    def apply_to(self, visit: Visit) -> None:
        """Add the change where the form says."""
        self.enter(visit, self.change(self.seen(visit)))

    def seen(self, visit: Visit) -> Tensor:
        """Return what the change is computed from [… D]."""
        match self.form:
            case "output" | "norm":
                return visit.output
            case "stream":
                return visit.output + visit.residual
            case "parallel":
                return visit.residual

    def enter(self, visit: Visit, change: Tensor) -> None:
        """Add a change [… D]."""
        if self.form == "norm":
            visit.repeat(visit.input + change)
        else:
            visit.output = visit.output + change


class Bottleneck(Network):
    """2·D·m + D + m weights (Houlsby et al. 2019, section 2.1)."""

    def __init__(self, width: int, size: int, activation: str, scale: float, form: Form) -> None:
        super().__init__()
        self.form = form
        self.scale = scale
        self.activation = ACT2FN[activation]
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        self._begin()

    def _begin(self) -> None:
        """Begin near the identity: truncated N(0, 0.01²), as Houlsby et al.; a parallel part exactly there, as LoRA."""
        if self.form == "parallel":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            nn.init.zeros_(self.up.weight)
        else:
            for linear in (self.down, self.up):
                nn.init.trunc_normal_(linear.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def change(self, given: Tensor) -> Tensor:
        """Return s·(W_up φ(W_down x + b) + b)."""
        inside = self.activation(self.down(given.to(self.down.weight.dtype)))
        changed: Tensor = self.scale * self.up(inside)
        return changed.to(given.dtype)


class Kronecker(nn.Module):
    """A linear map whose matrix is Σᵢ Aᵢ ⊗ (lᵢ rᵢ) over n products, rank 1 (Karimi Mahabadi et al. 2021, section 3.1).

    The rule A [n n n] is shared by all layers and lives with the tuner; l [n D/n 1], r [n 1 O/n] are the layer's own.
    """

    def __init__(self, width: int, out: int, products: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(products, width // products, 1))
        self.right = nn.Parameter(torch.empty(products, 1, out // products))
        self.bias = nn.Parameter(torch.zeros(out))
        for factor in (*self.left, *self.right):
            nn.init.xavier_normal_(factor.data)

    def forward(self, given: Tensor, rule: Tensor) -> Tensor:
        """Return x·H + b for x [… D] and the rule A."""
        products = torch.bmm(self.left, self.right)
        width, out = (size * len(rule) for size in products.shape[1:])
        matrix = torch.einsum("nab,nio->aibo", rule, products).reshape(width, out)
        return given @ matrix + self.bias


class Compacter(Network):
    """A bottleneck of Kronecker products: its rule is one for all layers of an adapter."""

    def __init__(self, sizes: tuple[int, int], activation: str, scale: float, form: Form, rule: "Rule") -> None:
        super().__init__()
        width, size = sizes
        self.form = form
        self.scale = scale
        self.activation = ACT2FN[activation]
        self.down = Kronecker(width, size, len(rule.weight))
        self.up = Kronecker(size, width, len(rule.weight))
        self._rule = [rule]  # in a list: it is saved with the tuner, not with each layer

    @property
    def rule(self) -> "Rule":
        """What all layers of the adapter share."""
        return self._rule[0]

    def change(self, given: Tensor) -> Tensor:
        """Return s·H_up φ(H_down x)."""
        rule = self.rule.weight
        changed: Tensor = self.scale * self.up(self.activation(self.down(given.to(rule.dtype), rule)), rule)
        return changed.to(given.dtype)


class Rule(nn.Module):
    """A [n n n], from N(0, 0.0001²): the maps begin near zero."""

    def __init__(self, products: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(products, products, products) * 1e-4)
