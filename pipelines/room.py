"""What memory a run has, and how a training keeps to it."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import psutil
import torch

from distill.memory import few_holes, given_back
from distill.strategies.memory_laws import Need
from pipelines import control_groups
from pipelines.run import Run


@dataclass(frozen=True)
class Free:
    """Bytes that one process may take."""

    device: int
    """Of its device; on CPUs its share of the host's memory."""
    host: int | None = None
    """Beside a GPU: its share of the host's memory; none where that is not known, or the same memory."""

    def holds(self, need: Need) -> bool:
        """Whether all of it fits."""
        return need.total <= self.device and (self.host is None or need.host <= self.host)


def free_for(run: Run) -> Free:
    """Return what a process of the run may take, beside the others of its host."""
    if run.device.accelerator == "gpu":
        return Free(free_memory(run), _free_of_host() // run.device.devices)
    return Free(free_memory(run))


def free_memory(run: Run) -> int:
    """Return the bytes that are free for one process: on its device, or its share of the host's."""
    if run.device.accelerator == "gpu":
        return int(torch.cuda.mem_get_info()[0])
    return _free_of_host() // run.device.devices


def _free_of_host() -> int:
    """Return the bytes that are free for all processes of the run on this host: a container's may be fewer."""
    free, left = int(psutil.virtual_memory().available), control_groups.memory()
    return free if left is None else min(free, left)


def kept_small(run: Run, planned: int | None) -> AbstractContextManager[None]:
    """Keep a training on a CPU near what it has in use: it gives back at once what it frees, where it needs half of the
    free memory and more; elsewhere once the holes of its heap take half as much again, which costs less time.
    """
    if run.device.accelerator == "gpu":
        return nullcontext()
    return few_holes() if planned is None or 2 * planned < free_memory(run) else given_back()
