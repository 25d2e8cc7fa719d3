"""AdapterFusion: attention over what several adapters would add (Pfeiffer et al. 2021, section 3.2)."""

import torch
from torch import Tensor, nn

from students.adapters.modular.bottleneck import Network
from students.adapters.modular.part import Part, Visit


class Fusion(Part):
    """Σₙ softmaxₙ(q(h) · k(oₙ)) v(oₙ), with oₙ = fₙ(h) what member n would add to what it sees, h; no 1/√D.

    The sum enters where one member's change would. V begins as the identity.
    """

    def __init__(self, width: int, members: list[str], peers: nn.ModuleDict, regularisation: float) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width, bias=False)
        for linear in (self.query, self.key):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.value.weight.copy_(torch.eye(width) + 1e-6)
        self.members = members
        self.regularisation = regularisation
        self._peers = [peers]  # in a list: the members are adapters of their own

    def apply_to(self, visit: Visit) -> None:
        """Mix the members' changes."""
        members: list[Network] = [self._peers[0][name] for name in self.members]  # type: ignore[misc]
        query = members[0].seen(visit)
        changes = torch.stack([member.change(query) for member in members], -2)
        members[0].enter(visit, self.mix(query, changes))

    def mix(self, query: Tensor, changes: Tensor) -> Tensor:
        """Return the attention's output [… D] for a query [… D] and changes [… N D]."""
        given = changes.to(self.key.weight.dtype)
        scores = torch.einsum("...d,...nd->...n", self.query(query.to(given.dtype)), self.key(given))
        mixed = torch.einsum("...n,...nd->...d", scores.softmax(-1), self.value(given))
        return mixed.to(query.dtype)

    def penalty(self) -> Tensor | None:
        """Return λ‖V − I‖²: V begins as the identity and is held near it."""
        if not self.regularisation:
            return None
        identity = torch.eye(len(self.value.weight), device=self.value.weight.device)
        return self.regularisation * (self.value.weight - identity).square().sum()
