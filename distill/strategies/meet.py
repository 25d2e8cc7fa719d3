"""DeepSpeed's view of the processes: it is torch's."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import deepspeed
import torch.distributed as dist
from torch.distributed import distributed_c10d


def meet(backend: str) -> None:
    """Let DeepSpeed join torch's group of processes, which is there already."""
    with redirect_stdout(io.StringIO()):  # every process would say that it built an extension
        deepspeed.init_distributed(dist_backend=backend)


def wait_alike() -> None:
    """Give the groups that DeepSpeed has made the time-out of torch's own: theirs would be NCCL's ten minutes."""
    world = dist.group.WORLD
    assert world is not None
    timeout = world._get_backend(world._device_types[0]).options._timeout
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timeout, group)


@contextmanager
def placed(rank: int, world: int, local: int) -> Iterator[None]:
    """Tell DeepSpeed, by the environment, which process this is of those that train. Outside, the environment tells its
    place among all that were started, if anything: some of them may only teach. Its number on its host, which DeepSpeed
    looks up in each step and srun does not tell, stays.
    """
    os.environ.setdefault("LOCAL_RANK", str(local))
    told = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(local)}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
