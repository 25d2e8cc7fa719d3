"""Distances between hidden states of paired layers, and between the outputs of the embedding layers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.few_shapes import FewShapes
from distill.losses.reduction import Positions, blank, count, named, places_of, same_shape, unmasked, upcast
from distill.protocols import LossTerm
from distill.types import Batch, Layers, Needs, Outputs, Side, Unit

HiddenDistance = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (Σ over unmasked positions of the mean over the width of (S − T)², number of unmasked positions).

    TinyBERT's L_hidn after the projection (Jiao et al. 2020, section 3.1).
    States [... D], mask [...]; None counts every position.
    """
    same_shape("hidden states", student, teacher)
    own, taught = (blank(upcast(states), mask) for states in (student, teacher))
    return F.mse_loss(own, taught, reduction="sum") / own.shape[-1], count(mask, own)


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (Σ over unmasked positions of 1 − cos(S, T), number of unmasked positions).

    DistilBERT's loss on hidden states (Sanh et al. 2019). A state of zeros has cosine 0 with any other.
    States [... D], mask [...]; None counts every position.
    """
    same_shape("hidden states", student, teacher)
    own, taught = (blank(upcast(states), mask) for states in (student, teacher))
    distance = 1.0 - F.cosine_similarity(own, taught, dim=-1)
    return blank(distance, mask).sum(), count(mask, own)


@dataclass(frozen=True)
class Projection:
    """How the student's hidden states reach the teacher's width."""

    kind: Literal["linear", "mlp"]
    """`mlp` is linear, GELU, linear."""
    student: int
    """Width D of the student."""
    teacher: int
    """Width D of the teacher."""
    shared: bool = False
    """One map for all layers, as TinyBERT's released code has; else one each."""

    def modules(self, layers: Iterable[int]) -> nn.ModuleDict:
        """Return the learned maps by student layer, or one named `shared`, drawn from torch's generator."""
        names = ["shared"] if self.shared else [str(layer) for layer in layers]
        return nn.ModuleDict({name: self._map() for name in names})

    def _map(self) -> nn.Module:
        if self.kind == "linear":
            return _linear(self.student, self.teacher)
        return nn.Sequential(_linear(self.student, self.teacher), nn.GELU(), _linear(self.teacher, self.teacher))


class Hidden(LossTerm):
    """Sum over paired layers of a distance between hidden states, the student's through its projector.

    With the unit `padded_positions` padding counts, as TinyBERT's released code lets it; otherwise it is left out
    before anything is projected.
    """

    def __init__(
        self,
        name: str,
        layers: Mapping[int, int],
        distance: HiddenDistance,
        unit: Unit,
        projection: Projection | None = None,
        side: Side = "encoder",
    ) -> None:
        super().__init__()
        self.name = named(name, side)
        self.side = side
        self.layers = dict(layers)
        self.distance = distance
        self.unit = unit
        self.projectors = projection.modules(self.layers) if projection else nn.ModuleDict()
        self.student_needs = Needs.of(side, Layers(hidden_states=frozenset(self.layers)))
        self.teacher_needs = Needs.of(side, Layers(hidden_states=frozenset(self.layers.values())))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over layers and positions."""
        places = Positions() if self.unit == "padded_positions" else unmasked(places_of(batch, self.side))
        ours, theirs = student.on(self.side).hidden_states, teacher.on(self.side).hidden_states
        totals = [
            self.distance(
                self._projected(own, places.rows(ours[own])),
                places.rows(theirs[taught]),
                places.keep,
            )[0]
            for own, taught in self.layers.items()
        ]
        return torch.stack(totals).sum()

    def _projected(self, layer: int, rows: Tensor) -> Tensor:
        if not self.projectors:
            return rows
        name = "shared" if "shared" in self.projectors else str(layer)
        projected: Tensor = self.projectors[name](rows)
        return projected


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear map with BERT's initial weights."""
    layer = FewShapes(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
