"""What a part of an adapter can do where it sits."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Visit:
    """One call of an adapted module: a part changes its output, or its input and calls it again."""

    module: nn.Module
    """Without adapters."""
    inputs: tuple[Any, ...]
    options: Mapping[str, Any]
    output: Tensor
    tapped: Tensor | None = None
    """What the output will be added to, where a part of the place asked for it."""

    @property
    def input(self) -> Tensor:
        """Its first input."""
        found: Tensor = self.inputs[0]
        return found

    @property
    def residual(self) -> Tensor:
        """What the output will be added to. Raise RuntimeError where nothing was kept of it."""
        if self.tapped is None:
            raise RuntimeError(f"{type(self.module).__name__} ran before the module whose input its adapter takes")
        return self.tapped

    def repeat(self, given: Tensor) -> None:
        """Call the module again on another input."""
        self.inputs = (given, *self.inputs[1:])
        self.output = self.module(*self.inputs, **self.options)


class Part(nn.Module, ABC):
    """The weights of one adapter at one place."""

    mergeable = False
    """Whether the base's own weights can take it in."""
    layered = True
    """Whether it is one of many, of which every layer has some."""
    undoes = False
    """Whether it undoes what a part of its adapter did elsewhere."""
    layer: int = 0
    """Number of the layer it sits in."""

    def is_below(self, layers: int) -> bool:
        """Whether it belongs to one of the lowest layers."""
        return self.layered and self.layer < layers

    def entering(self) -> AbstractContextManager[Any]:
        """Return what has to be so while the module runs."""
        return nullcontext()

    @abstractmethod
    def apply_to(self, visit: Visit) -> None:
        """Change what the module gave."""

    def merge_into(self, module: nn.Module, sign: float) -> None:
        """Add it to the module's weights, or with sign −1 take it away again."""
        raise ValueError(f"{type(self).__name__} is not linear: it cannot be merged into the weights below it")

    def penalty(self) -> Tensor | None:
        """Return what it adds to the loss by itself."""
        return None
