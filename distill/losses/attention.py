"""Distances between the attention of paired layers.

Scores are q·k/√A before mask and softmax, [B H T T]; the mask [B T] is 1 where there is a token. Where queries look at
other places than their own, scores are [B H T S], and `keys` [B S] is the mask of those places.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.closed_form import FLOOR, SoftmaxKL
from distill.losses.reduction import count, named, pairs, places_of, same_shape, upcast
from distill.protocols import LossTerm
from distill.types import Batch, Layers, Needs, Outputs, Side, Unit

HUAWEI_MASK = -10000.0
"""What BERT adds to the score of a masked key."""
HUAWEI_CUT = -100.0
"""Scores up to here count as 0 in TinyBERT's released code."""

AttentionDistance = Callable[..., tuple[Tensor, Tensor]]
"""(student's scores, teacher's scores, mask, keys, causal=…) → (sum, number of what it is over)"""


def attention_score_mse(
    student_scores: Tensor, teacher_scores: Tensor, mask: Tensor, keys: Tensor | None = None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Return (Σ over unmasked query–key pairs of the mean over heads of (S − T)², number of such pairs).

    TinyBERT's L_attn (Jiao et al. 2020, section 3.1), with padding left out; with `causal`, keys after their query too.
    """
    same_shape("attention scores", student_scores, teacher_scores)
    both = pairs(mask, keys, causal=causal)
    off = ~both
    student, teacher = (upcast(s).masked_fill(off, 0.0) for s in (student_scores, teacher_scores))
    return F.mse_loss(student, teacher, reduction="sum") / student.shape[1], count(both, both)


def attention_probability_kl(
    student_scores: Tensor, teacher_scores: Tensor, mask: Tensor, keys: Tensor | None = None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Return (Σ over unmasked queries of the mean over heads of KL(teacher ‖ student), number of unmasked positions).

    MiniLM's L_AT (Wang et al. 2020); the softmax runs over unmasked keys, with `causal` up to the query's own place. A
    masked query gets the same logits on both sides and so adds nothing.
    """
    same_shape("attention scores", student_scores, teacher_scores)
    off = ~pairs(mask, keys, causal=causal)
    student, teacher = (upcast(s).masked_fill(off, FLOOR) for s in (student_scores, teacher_scores))
    total: Tensor = SoftmaxKL.apply(student, teacher)  # type: ignore[no-untyped-call]
    return total / student.shape[1], count(mask, mask)


def attention_score_huawei(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return (Σ over all B·T² pairs of the mean over heads of (S − T)², B·T²), as TinyBERT's released code does.

    −10000 is added for masked keys, then scores ≤ −100 become 0 on both sides: masked keys add 0, padded queries count.
    """
    same_shape("attention scores", student_scores, teacher_scores)
    offset = (mask == 0)[:, None, None, :] * HUAWEI_MASK
    student, teacher = (_cut(upcast(s) + offset) for s in (student_scores, teacher_scores))
    return F.mse_loss(student, teacher, reduction="sum") / student.shape[1], count(None, student[:, 0, :, :, None])


def _cut(scores: Tensor) -> Tensor:
    return scores.masked_fill(scores <= HUAWEI_CUT, 0.0)


class Attention(LossTerm):
    """Sum over paired layers of a distance between their attention scores."""

    def __init__(
        self,
        layers: Mapping[int, int],
        distance: AttentionDistance,
        unit: Unit,
        side: Side = "encoder",
        *,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.name = named("attention", side)
        self.layers = dict(layers)
        self.distance = distance
        self.unit = unit
        self.side = side
        self.options = {"causal": True} if causal else {}
        self.student_needs = Needs.of(side, Layers(attentions=frozenset(self.layers)))
        self.teacher_needs = Needs.of(side, Layers(attentions=frozenset(self.layers.values())))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over layers and the unit."""
        masks = [places_of(batch, self.side)] + ([batch["attention_mask"]] if self.side == "cross" else [])
        ours, theirs = student.on(self.side).attentions, teacher.on(self.side).attentions
        totals = [
            self.distance(ours[own], theirs[taught], *masks, **self.options)[0] for own, taught in self.layers.items()
        ]
        return torch.stack(totals).sum()
