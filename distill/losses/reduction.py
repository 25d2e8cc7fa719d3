"""What counts, in one place: which positions and pairs a loss sees, how they are picked, and in what precision.

Every loss returns the sum over what counts; the division is done once, by the module, with the count of the whole
window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.types import IGNORED, Batch, Side


def upcast(tensor: Tensor) -> Tensor:
    """Return half types as fp32 and leave fp32 and fp64 as they are."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def same_shape(what: str, student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError naming both shapes where they differ: a loss never broadcasts one side to the other."""
    if student.shape != teacher.shape:
        raise ValueError(f"{what}: the student's shape {[*student.shape]} is not the teacher's {[*teacher.shape]}")


@dataclass(frozen=True)
class Positions:
    """The positions of a batch that count, for taking states as rows."""

    index: Tensor | None = None
    """[N] int64: which of the positions to take, B·T of them or B; None takes all."""
    keep: Tensor | None = None
    """[N]: which of the rows taken count; None counts all."""

    def rows(self, states: Tensor) -> Tensor:
        """Return states [B T D], or [B D], as rows [N D]."""
        flat = states.flatten(0, -2)
        return flat if self.index is None else flat.index_select(0, self.index)


def unmasked(mask: Tensor) -> Positions:
    """Return the positions where mask [B T] is set.

    On a CPU padding is left out before anything is computed from it (1.7 times faster for projected hidden states).
    Elsewhere the host would have to wait for their number, so all positions are taken and the mask goes along.
    """
    flat = mask.flatten()
    if flat.device.type != "cpu":
        return Positions(keep=flat)
    index = flat.nonzero().squeeze(1)
    return Positions() if index.numel() == flat.numel() else Positions(index=index)


def pairs(mask: Tensor, keys: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Return [B 1 T S] bool: query and key are both unmasked, in mask [B T] and in `keys` [B S], if these are others.

    With `causal` a key must not come after its query.
    """
    keep, other = mask.bool(), mask.bool() if keys is None else keys.bool()
    both = (keep[:, :, None] & other[:, None, :])[:, None]
    return both.tril() if causal else both


def named(kind: str, side: Side) -> str:
    """Return the name of a term in logs: `hidden`, and `hidden_decoder` where it is not about the encoder."""
    return kind if side == "encoder" else f"{kind}_{side}"


def places_of(batch: Batch, side: Side) -> Tensor:
    """Return which positions of a side hold a token: of the sequence [B T], or of the target [B U] in a decoder."""
    return batch["attention_mask"] if side == "encoder" else batch["labels"] != IGNORED


def blank(tensor: Tensor, keep: Tensor | None) -> Tensor:
    """Return the tensor with zeros where keep, of the same leading shape, is not set.

    Done before anything is computed, so that not even NaN in padding reaches a loss or a gradient.
    """
    if keep is None:
        return tensor
    off = ~keep.bool()
    return tensor.masked_fill(off.reshape(off.shape + (1,) * (tensor.dim() - off.dim())), 0.0)


def weighed(values: Tensor, places: Positions, batch: Batch) -> Tensor:
    """Return the values [N] of the target positions taken, each times the weight of its row, where rows have any."""
    weights = batch.get("weights")
    if weights is None:
        return values
    return values * places.rows(weights[:, None, None].expand(*batch["labels"].shape, 1)).squeeze(-1)


def count(keep: Tensor | None, like: Tensor) -> Tensor:
    """Return how many count: those set in keep, or all leading places of like [... D]; a scalar on the same device."""
    if keep is None:
        return torch.full((), like.numel() // max(like.shape[-1], 1), dtype=torch.int64, device=like.device)
    return keep.bool().sum()
