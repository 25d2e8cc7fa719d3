"""A teacher that is the student's own frozen model: its adapter is off while it teaches."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from distill import capture
from distill.adapters import switched_off
from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs, Shape


class OwnTeacher(Teacher):
    """The model inside a student's adapter, in eval mode for as long as it is asked; it takes no memory of its own."""

    def __init__(self, model: PeftModel, shape: Shape, offers: Needs, fingerprint: str) -> None:
        """Take the student's model. `shape` and `offers` are the student's own: adapters change no sizes."""
        self._model = model
        self.shape = shape
        self.offers = offers
        self.fingerprint = fingerprint

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Run the frozen model on a batch."""
        with self._frozen() as model:
            return capture.forward(model, batch, needs)

    @contextmanager
    def _frozen(self) -> Iterator[PreTrainedModel]:
        """Give the model without its adapter and without dropout, and put the student's mode back afterwards."""
        training = self._model.training
        self._model.train(False)
        try:
            with switched_off(self._model) as model:
                yield model
        finally:
            self._model.train(training)

    def to(self, device: torch.device) -> None:
        """Stay with the student, which is moved by its training."""

    def describe(self) -> str:
        """Say what it is."""
        return "the student's own frozen model"
