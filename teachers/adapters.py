"""Adapters that teach, each its own rows, in one frozen model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from configs.data import Task
from distill import capture
from distill.few_shapes import use_few_shapes
from distill.models import Loaded
from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs
from teachers.order import in_order
from teachers.packed import settle
from teachers.rows import joined, part_of


@dataclass(frozen=True)
class Member:
    """A frozen model in one of the adapters."""

    loaded: Loaded
    order: list[int] | None = None
    """For each of the run's classes, its output that means it; none where they agree."""


class AdapterTeacher(Teacher):
    """Models that share the weights of one, each in an adapter of its own: a row is taught by that of its source.

    It offers what all of them do.
    """

    def __init__(
        self,
        members: Mapping[str, Member],
        teach: Sequence[str],
        task: Task,
        fingerprint: str,
        *,
        autocast: torch.dtype | None = None,
        borrowed: bool = False,
    ) -> None:
        """Take the adapted models by name, and for each source of the training, in their order, the name of that which
        teaches it.

        `autocast` is the type that products are computed in during the training, none where that is the weights' own.
        `borrowed` weights are a student's, whose training holds them ready; otherwise they are frozen here.
        """
        names = list(members)
        self.models = [member.loaded.model for member in members.values()]
        self._orders = [None if member.order is None else torch.tensor(member.order) for member in members.values()]
        self._teach = torch.tensor([names.index(name) for name in teach])
        self._autocast = autocast
        self._borrowed = borrowed
        self._names = names
        self.fingerprint = fingerprint
        for model in self.models:
            capture.prepare(model)
            if borrowed:
                use_few_shapes(model.eval())
            else:
                model.eval().requires_grad_(False)
        heads = [member.loaded.trained_head and task.kind != "text" for member in members.values()]
        shapes = [capture.shape_of(model, trained_head=head) for model, head in zip(self.models, heads, strict=True)]
        offers = [capture.offers_of(model, shape) for model, shape in zip(self.models, shapes, strict=True)]
        self.shape = replace(shapes[0], outputs=min(shape.outputs for shape in shapes))
        self.offers = offers[0]
        for other in offers[1:]:
            self.offers = self.offers - (self.offers - other)

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Run each row's model on it; nothing it returns carries a gradient."""
        sources = batch.get("sources")
        if sources is None:
            return self._ask(int(self._teach[0]), batch, needs)
        who = self._teach[sources]
        asked = sorted({*who.tolist()})
        if len(asked) == 1:
            return self._ask(asked[0], batch, needs)
        parts = {number: part_of(batch, (who == number).nonzero().squeeze(1)) for number in asked}
        return joined([(part, self._ask(number, part.batch, needs)) for number, part in parts.items()])

    def _ask(self, number: int, batch: Batch, needs: Needs) -> Outputs:
        return in_order(capture.forward(self.models[number], batch, needs), self._orders[number])

    def to(self, device: torch.device) -> None:
        """Move all weights to a device; those that are frozen here are held ready for training there, once for all."""
        together = nn.ModuleList(self.models).to(device)
        if not self._borrowed:
            settle(together, self._autocast, device)
        self._teach = self._teach.to(device)
        self._orders = [None if order is None else order.to(device) for order in self._orders]

    def describe(self) -> str:
        """Say what they are."""
        base = "the student's own frozen model" if self._borrowed else "one frozen model"
        return f"adapters in {base}: {', '.join(self._names)}"
