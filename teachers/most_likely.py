"""A teacher's most likely outputs at every target position, in place of all of them."""

from dataclasses import replace

import torch
from torch import Tensor

from distill.files import digest
from distill.only_hidden import as_said
from distill.protocols import Teacher
from distill.types import IGNORED, Batch, Needs, Outputs, TopK


class MostLikely(Teacher):
    """Gives the K most likely of another teacher's outputs at target positions: what a record keeps of them too."""

    def __init__(self, teacher: Teacher, top_k: int) -> None:
        """Keep so many outputs of a teacher."""
        shape = teacher.shape
        self.shape = None if shape is None else replace(shape, kept=min(top_k, shape.outputs))
        self.offers = teacher.offers
        self.in_step = teacher.in_step
        self.fingerprint = digest(teacher.fingerprint, "most likely", str(top_k))
        self._teacher = teacher
        self._top_k = top_k

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Return what the teacher says, its logits cut down."""
        outputs = self._teacher(batch, needs)
        if outputs.logits is None:
            return outputs
        here = as_said(batch)["labels"] != IGNORED
        return replace(outputs, logits=None, top_k=placed(most_likely(outputs.logits[here], self._top_k), here))

    def to(self, device: torch.device) -> None:
        """Move the teacher."""
        self._teacher.to(device)

    def describe(self) -> str:
        """Say what it is."""
        return f"the {self._top_k} most likely outputs of {self._teacher.describe()}"


def most_likely(logits: Tensor, top_k: int) -> TopK:
    """Return the K most likely outputs at positions, [P K], from logits [P V]; all V, where they are fewer."""
    best = logits.float().log_softmax(-1).topk(min(top_k, logits.shape[-1]))
    return TopK(best.indices, best.values)


def placed(found: TopK, here: Tensor) -> TopK:
    """Return [B U K] from [P K], which belong to the positions that are marked in `here` [B U]; elsewhere anything."""
    shape = (*here.shape, found.indices.shape[-1])
    indices = torch.zeros(shape, dtype=torch.int64, device=here.device)
    log_probs = torch.zeros(shape, device=here.device)
    indices[here], log_probs[here] = found.indices.long(), found.log_probs
    return TopK(indices, log_probs)
