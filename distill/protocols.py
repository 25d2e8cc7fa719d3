"""The interfaces of the parts: a teacher, a student, a loss term. Abstract here, final where they are implemented."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from configs.decoding import Decoding
from distill.types import Batch, Completion, Needs, Outputs, Shape, Unit


class Teacher(ABC):
    """A frozen source of knowledge. A plain object, no `nn.Module`: never in a checkpoint, an optimiser or DDP."""

    shape: Shape | None
    """Sizes, None where there is no model."""
    offers: Needs
    """The most this teacher can be asked for."""
    fingerprint: str
    """A digest of what it teaches: a run is never resumed under another teacher."""
    in_step = False
    """Whether all ranks have to ask it at the same time, and so equally often."""

    @abstractmethod
    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Give what is needed, without gradients."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move to the device of the student."""

    @abstractmethod
    def describe(self) -> str:
        """Say in a phrase what it is, for errors and reports."""


class TextTeacher(ABC):
    """A teacher that writes text, and has no logits to offer."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of what writes: texts of one are never taken for those of another."""

    @abstractmethod
    def generate(self, prompts: Sequence[str], decoding: Decoding) -> Iterator[tuple[int, Completion]]:
        """Yield the place and the texts of each prompt, in any order."""

    @abstractmethod
    def describe(self) -> str:
        """Say in a phrase what it is, for errors and reports."""


class LossTerm(nn.Module, ABC):
    """A part of an objective. Pure: picks tensors, calls a function, returns a sum; what it learns are projectors."""

    name: str
    """Its name in logs, as `hidden` or `logits`; the objective numbers terms of one name."""
    unit: Unit
    """What its sum is divided by: the count of this unit over the whole optimiser window."""
    student_needs: Needs
    teacher_needs: Needs

    @abstractmethod
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the SUM over the unit, a scalar in fp32."""


class TrainedModel(nn.Module, ABC):
    """A model that learns: `model(batch, needs)`."""

    shape: Shape
    offers: Needs

    @abstractmethod
    def forward(self, batch: Batch, needs: Needs) -> Outputs:
        """Run on a batch and return what is needed."""

    @abstractmethod
    def frozen(self, batch: Batch, needs: Needs) -> Outputs:
        """Run the frozen model inside an adapter, without it."""

    @abstractmethod
    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return the trained parameters for an optimiser."""

    @abstractmethod
    def penalty(self) -> Tensor | None:
        """Return what the model adds to the loss by itself, once a window, or None."""
