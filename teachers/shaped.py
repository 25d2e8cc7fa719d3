"""A teacher that gives what has the right shape, and no meaning."""

from dataclasses import replace

import torch

from distill.only_hidden import as_said
from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs, Shape, TopK


class ShapedTeacher(Teacher):
    """Stands for a teacher whose logits are read back, where memory is planned."""

    def __init__(self, shape: Shape, kept_tokens: int | None) -> None:
        """Take its sizes, and how many tokens of each position were kept, if not all."""
        self.shape = replace(shape, kept=kept_tokens)
        self.offers = Needs(logits=True)
        self.fingerprint = ""

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Return logits of the right size."""
        labels, shape = as_said(batch)["labels"], self.shape
        assert shape is not None
        if shape.kept is None:
            return Outputs(logits=torch.empty(*labels.shape, shape.outputs, device=labels.device))
        places = torch.zeros((*labels.shape, shape.kept), dtype=torch.int64, device=labels.device)
        return Outputs(top_k=TopK(places, torch.zeros(places.shape, device=labels.device)))

    def to(self, device: torch.device) -> None:
        """Stay."""

    def describe(self) -> str:
        """Say what it is."""
        return "a recorded teacher"
