"""What a training step holds in memory, found out without holding it: the step itself, over tensors without data.

Every operation runs on fake tensors (shapes, types, devices), so any architecture, adapter and objective is counted as
it is, attention kernels and copies of autocast too. What is known stays known: tokens and masks are small and keep
their values, so that losses pick the positions they will pick.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

Phase = Literal["forward", "backward", "validation"]
Kind = Literal["activations", "logits", "gradients"]
KNOWN = 1_000_000
"""Most elements of a tensor of whole numbers that is made from nothing (positions, masks) and keeps its values."""
PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu"})
"""Operations that are products of matrices."""
BY_WEIGHTS = frozenset({"mm", "addmm"})
"""Those that linear layers compute with."""


class Product(NamedTuple):
    """A product of matrices: equal ones share a kernel."""

    phase: Phase
    held: bool
    """Whether it is of weights that a frozen model holds ready, which is a kernel of its own."""
    name: str
    shapes: tuple[tuple[int, ...], ...]
    """Of all that goes in."""


CUDA_BLOCK = 512
"""Bytes that torch's allocator rounds up to on a GPU."""


@dataclass(frozen=True)
class Moment:
    """What was there at once, beside weights and the optimiser's state: bytes."""

    phase: Phase
    activations: int
    """What the backward pass needs, and what is passing, of teacher, student and losses."""
    logits: int
    """The same, of tensors as wide as the vocabulary or the classes."""
    gradients: int
    """Of those weights that have theirs already."""

    @property
    def passing(self) -> int:
        """All but the gradients."""
        return self.activations + self.logits


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Books every storage that operations make, from its making to its end."""

    def __init__(self, outputs: int, block: int = 1) -> None:
        """Count tensors whose last dimension is `outputs` as logits; a storage takes multiples of `block` bytes."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase: Phase = "forward"
        self.moments: list[Moment] = []
        self.products: set[Product] = set()
        """Those in bf16."""
        self._outputs = outputs
        self._block = block
        self._live: dict[Kind, int] = {"activations": 0, "logits": 0, "gradients": 0}
        self._booked: dict[int, tuple[Kind, int]] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._others: set[int] = set()

    def pass_over(self, tensors: Iterable[Tensor]) -> None:
        """Count these, and what is a view of them, nowhere: weights, batches."""
        self._others |= {_key(tensor) for tensor in tensors}

    def is_gradient(self, parameter: Tensor) -> None:
        """Book a parameter's gradient as such."""
        assert parameter.grad is not None
        key = _key(parameter.grad)
        if key in self._booked:
            kind, size = self._booked[key]
            self._live[kind] -= size
            self._live["gradients"] += size
            self._booked[key] = ("gradients", size)
            self._note()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation: on values where all that goes in has them, else on shapes; book what comes out."""
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        if name in PRODUCTS and any(leaf.dtype == torch.bfloat16 for leaf in given):
            held = name == "addmm" and self.phase == "forward" and not torch.is_grad_enabled()
            self.products.add(Product(self.phase, held, name, tuple(tuple(leaf.shape) for leaf in given)))
        if given and not any(isinstance(tensor, FakeTensor) for tensor in given):
            with unset_fake_temporarily():
                found = func(*args, **kwargs)
        else:
            found = func(*args, **kwargs)
            if not given and _is_small_and_whole(found):
                with unset_fake_temporarily():
                    found = func(*args, **kwargs)
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._book(tensor)
        return found

    def _book(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._booked or key in self._others:
            return
        kind: Kind = "logits" if tensor.ndim > 1 and tensor.shape[-1] == self._outputs else "activations"
        size = -(-storage.nbytes() // self._block) * self._block
        self._booked[key] = (kind, size)
        self._watched[key] = weakref.ref(storage, partial(self._end, key))
        self._live[kind] += size
        self._note()

    def _end(self, key: int, _: Any) -> None:
        kind, size = self._booked.pop(key)
        del self._watched[key]
        self._live[kind] -= size

    def _note(self) -> None:
        live = self._live
        self.moments.append(Moment(self.phase, live["activations"], live["logits"], live["gradients"]))


@dataclass(frozen=True)
class Tracer:
    """Makes modules weightless and runs them."""

    mode: AbstractContextManager[Any]
    """Makes tensors without data; with a `nullcontext` the step runs as it is."""
    device: torch.device
    autocast: torch.dtype | None
    """The type that products are computed in, none where that is the weights' own."""

    @staticmethod
    def on(device: str, autocast: torch.dtype | None) -> "Tracer":
        """Trace what would run on a device, which need not be there."""
        return Tracer(FakeTensorMode(allow_non_fake_inputs=True), torch.device(device), autocast)

    def take(self, module: nn.Module) -> None:
        """Put weights and buffers without data in the place of a module's own; what is tied stays tied."""
        made: dict[int, Tensor] = {}
        with self.mode:
            for part in module.modules():
                for held in (part._parameters, part._buffers):
                    for name, tensor in held.items():
                        if tensor is not None and not isinstance(tensor, FakeTensor):
                            held[name] = made.setdefault(id(tensor), self._like(tensor))  # type: ignore[assignment]

    def _like(self, tensor: Tensor) -> Tensor:
        made = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
        return nn.Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made

    def batch(self, batch: Any) -> Any:
        """Bring a batch to the device: on the CPU with its values, elsewhere without."""
        if self.device.type == "cpu":
            return batch
        with self.mode:
            return tree_map_only(Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device=self.device), batch)

    @contextmanager
    def running(self, ledger: Ledger | None = None) -> Iterator[None]:
        """Run what is inside without data, and book it."""
        with self.mode, ledger or Ledger(0), _autocast(self.device.type, self.autocast):
            yield

    def step(self, loss: Callable[[], Tensor], modules: Iterable[nn.Module], ledger: Ledger, *, again: bool) -> None:
        """Book a forward and a backward pass; `again`: beside gradients of earlier micro-batches."""
        every = [*modules]
        ledger.pass_over(tensor for module in every for tensor in (*module.parameters(), *module.buffers()))
        learning = [weight for module in every for weight in module.parameters() if weight.requires_grad]
        with self.mode:
            for weight in learning:
                weight.grad = torch.empty_like(weight) if again else None
        ledger.pass_over(weight.grad for weight in learning if weight.grad is not None)
        hooks = [weight.register_post_accumulate_grad_hook(ledger.is_gradient) for weight in learning]  # type: ignore[no-untyped-call]
        with self.running(ledger):
            ledger.phase = "forward"
            total = loss()
        with self.mode, ledger:
            ledger.phase = "backward"
            total.backward()  # type: ignore[no-untyped-call]
        for hook, weight in zip(hooks, learning, strict=True):
            hook.remove()
            weight.grad = None


def _is_small_and_whole(found: Any) -> bool:
    """Whether an operation on nothing gave whole numbers, and few."""
    return isinstance(found, Tensor) and not found.dtype.is_floating_point and found.numel() <= KNOWN


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _autocast(device: str, dtype: torch.dtype | None) -> Iterator[None]:
    """Compute products in a type. `torch.autocast` refuses devices that are not there."""
    if dtype is None:
        yield
        return
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
