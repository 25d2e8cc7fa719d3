"""A teacher whose logits were recorded: the same numbers without its forward passes."""

import torch

from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs, Shape
from teachers.record import Record, TokenRecord


class CachedTeacher(Teacher):
    """Looks logits up by the key of the row, where the teacher's head was trained. It knows nothing of layers."""

    def __init__(self, shape: Shape | None, fingerprint: str, record: Record | TokenRecord | None, name: str) -> None:
        """Take the sizes of the teacher that was recorded.

        `record` is none where it is still to be made; `name` is that of the stage that makes it.
        """
        self.shape = shape
        self.offers = Needs(logits=shape is not None and shape.outputs > 0)
        self.fingerprint = fingerprint
        self._record = record
        self._name = name

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Return the logits of the batch's rows. Raise DataError for a row that was not recorded."""
        if self._record is None:
            raise RuntimeError(f"stage {self._name} has not recorded the teacher yet")
        return self._record.outputs(batch) if needs.logits else Outputs()

    def to(self, device: torch.device) -> None:
        """Hold the logits on a device."""
        if self._record is not None:
            self._record = self._record.to(device)

    def describe(self) -> str:
        """Say which stage recorded it."""
        return f"the teacher as recorded by stage {self._name}"
