"""Several teachers that speak with one voice."""

import math
from collections.abc import Sequence

import torch

from distill.files import digest
from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs


class EnsembleTeacher(Teacher):
    """The mean of its members' probabilities, as when they write together: logits are log (1/N · Σₙ pₙ)."""

    def __init__(self, members: Sequence[Teacher]) -> None:
        """Take teachers of one vocabulary, which all give logits."""
        self._members = members
        self.shape = members[0].shape
        self.offers = Needs(logits=True)
        self.fingerprint = digest("ensemble", *(member.fingerprint for member in members))

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Ask all members; logits [B … V] in fp32."""
        mean: torch.Tensor | None = None
        for member in self._members:
            logits = member(batch, needs).logits
            assert logits is not None
            said = logits.float().log_softmax(-1)
            mean = said if mean is None else torch.logaddexp(mean, said)
        assert mean is not None
        return Outputs(logits=mean - math.log(len(self._members)))

    def to(self, device: torch.device) -> None:
        """Move all members to a device."""
        for member in self._members:
            member.to(device)

    def describe(self) -> str:
        """Name the members."""
        return "an ensemble of " + ", ".join(member.describe() for member in self._members)
