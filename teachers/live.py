"""A teacher that runs beside the student."""

import torch

from configs.data import Task
from distill import capture
from distill.models import Loaded
from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs
from teachers.order import in_order
from teachers.packed import settle


class LiveTeacher(Teacher):
    """A frozen transformers model in eval mode: all its layers, and logits where its head was trained."""

    def __init__(
        self,
        loaded: Loaded,
        task: Task,
        fingerprint: str,
        order: list[int] | None = None,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        """Freeze a model.

        `order` lists, for each of the run's classes, the teacher's output that means it; `autocast` is the type that
        products are computed in during the training, none where that is the weights' own.
        """
        self._model = loaded.model.eval().requires_grad_(False)
        self._name = loaded.source
        self.fingerprint = fingerprint
        self._order = None if order is None else torch.tensor(order)
        self._autocast = autocast
        self._stays = loaded.quantised
        capture.prepare(self._model)
        self.shape = capture.shape_of(self._model, trained_head=loaded.trained_head and task.kind != "text")
        self.offers = capture.offers_of(self._model, self.shape)

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Run on a batch; nothing it returns carries a gradient."""
        if self._model.training:
            raise RuntimeError(f"the teacher {self._name} is in train mode")
        return in_order(capture.forward(self._model, batch, needs), self._order)

    def to(self, device: torch.device) -> None:
        """Move weights to a device, unless they are quantised and there, and hold them ready for training there."""
        if not self._stays:
            self._model.to(device)
        settle(self._model, self._autocast, device)
        if self._order is not None:
            self._order = self._order.to(device)

    def describe(self) -> str:
        """Say where it came from."""
        return f"the live teacher {self._name}"
