"""A module with the parts of adapters around it."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from students.adapters.modular.part import Part, Visit


class Tap:
    """Keeps the input of a module for a part further down that takes it, within one forward pass.

    A hook and no wrapper: the module's name, and with it the name of what is saved, stays as it was.
    """

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Keep the first input."""
        self._held = inputs[0]

    def take(self) -> Tensor | None:
        """Return what was kept, once."""
        held, self._held = self._held, None
        return held


class Drop:
    """In how many of the lowest layers the parts of some adapters do not run in this pass."""

    def __init__(self) -> None:
        self.below = 0
        self._of: frozenset[str] = frozenset()

    def draw(self, most: int, of: Iterable[str]) -> None:
        """Draw 0 … `most` from torch's generator, which every step seeds."""
        self.leave_out(int(torch.randint(most + 1, ())) if most else 0, of)

    def leave_out(self, below: int, of: Iterable[str]) -> None:
        """Leave those of the lowest layers out; adapters that these stand on keep theirs, as when they are pruned."""
        self.below, self._of = below, frozenset(of)

    def leaves_out(self, adapter: str, part: Part) -> bool:
        """Whether a part of an adapter does not run."""
        return adapter in self._of and part.is_below(self.below)


class ModularLayer(nn.Module, BaseTunerLayer):
    """A module, and of each adapter at most one part around it."""

    adapter_layer_names = ("modular_parts",)

    def __init__(self, base_layer: nn.Module, drop: Drop) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.modular_parts = nn.ModuleDict()
        self.tap = Tap()
        self.drop = drop
        self._disable_adapters = False
        self._active_adapter: list[str] = []
        self.merged_adapters = []

    def add(self, adapter: str, part: Part) -> None:
        """Put a part of an adapter here."""
        self.modular_parts[adapter] = part
        self._move_adapter_to_device_of_base_layer(adapter)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the module and the active parts, in their order."""
        parts = self.running()
        with ExitStack() as stack:
            for part in parts:
                stack.enter_context(part.entering())
            given = self.base_layer(*inputs, **options)
        tapped = self.tap.take()
        if not parts:
            return given
        visit = Visit(self.base_layer, inputs, options, given[0] if isinstance(given, tuple) else given, tapped)
        for part in parts:
            part.apply_to(visit)
        return (visit.output, *given[1:]) if isinstance(given, tuple) else visit.output

    def running(self) -> list[Part]:
        """Return the parts that run, in the order of their adapters; those that undo others', in the reverse one."""
        if self.disable_adapters:
            return []
        names = [name for name in self.active_adapters if name not in self.merged_adapters]
        parts = {name: cast(Part, self.modular_parts[name]) for name in names if name in self.modular_parts}
        found = [part for name, part in parts.items() if not (self.training and self.drop.leaves_out(name, part))]
        return found[::-1] if any(part.undoes for part in found) else found

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the active parts to the module's weights. Raise ValueError for a part that is not linear."""
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.modular_parts:
                self.modular_parts[name].merge_into(self.get_base_layer(), 1.0)  # type: ignore[operator]
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take merged parts away again."""
        while self.merged_adapters:
            self.modular_parts[self.merged_adapters.pop()].merge_into(self.get_base_layer(), -1.0)  # type: ignore[operator]
