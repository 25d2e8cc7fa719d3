"""Work that all ranks do at the same time, as a model needs it that is dealt out over them: each layer is put together
by all, so that every rank has to ask it equally often.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def in_step(work: Callable[[Item], Mapping[str, Tensor]], items: Sequence[Item]) -> Iterator[Mapping[str, Tensor]]:
    """Yield, on every rank, what `work` makes of each item, in their order and on the CPU; they are done in turns, one
    by each rank.

    A rank for which none is left works on the last one as well, and what it makes of it is dropped. `work` returns
    tensors of the same names, types and numbers of dimensions every time.
    """
    rank, ranks = place()
    for first in range(0, len(items), ranks):
        found = work(items[min(first + rank, len(items) - 1)])
        every = {name: _of_all(value, ranks) for name, value in found.items()}
        for number in range(min(ranks, len(items) - first)):
            yield {name: values[number] for name, values in every.items()}


def told(number: int) -> int:
    """Return the number that rank 0 gave, on every rank."""
    if place() == (0, 1):
        return number
    sent = torch.tensor(number, device=_device())
    dist.broadcast(sent, 0)
    return int(sent)


def place() -> tuple[int, int]:
    """Return the number of this rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _of_all(own: Tensor, ranks: int) -> list[Tensor]:
    """Return what each rank has; their sizes differ."""
    if ranks == 1:
        return [own.cpu()]
    own = own.to(_device())
    shape = torch.tensor((own.numel(), *own.shape), device=own.device)
    shapes = [torch.empty_like(shape) for _ in range(ranks)]
    dist.all_gather(shapes, shape)
    sizes = [tuple(found.tolist()) for found in shapes]
    sent = own.new_zeros(max(size[0] for size in sizes))
    sent[: own.numel()] = own.flatten()
    received = [torch.empty_like(sent) for _ in range(ranks)]
    dist.all_gather(received, sent)
    return [found[: size[0]].view(size[1:]).cpu() for found, size in zip(received, sizes, strict=True)]


def _device() -> torch.device:
    """Return where tensors have to lie to be sent."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
