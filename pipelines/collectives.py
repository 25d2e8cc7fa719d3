"""How far this process is in what all ranks do together, which tells who waits from who is waited for."""

from collections.abc import Mapping

import torch.distributed as dist
from torch.distributed import distributed_c10d


def begun() -> dict[str, int]:
    """Return how many collectives this process has begun in each of its groups, by their names; they are the same on
    all ranks of a group.
    """
    found: dict[str, int] = {}
    if not dist.is_initialized():
        return found
    for group, name in [*distributed_c10d._world.pg_names.items()]:
        try:
            backends = {group._get_backend(device) for device in group._device_types}
            found[name] = sum(one._get_sequence_number_for_group() for one in backends)  # type: ignore[attr-defined]
        except RuntimeError:  # it ends at this moment
            continue
    return found


def is_behind(other: Mapping[str, int], own: Mapping[str, int]) -> bool:
    """Whether another process has begun fewer than this one, in a group of both."""
    return any(other[name] < count for name, count in own.items() if name in other)
