"""What memory a run has, and how a training keeps to it."""

from contextlib import AbstractContextManager, nullcontext

import psutil
import torch

from distill.memory import given_back
from pipelines.run import Run


def free_memory(run: Run) -> int:
    """Return the bytes that are free for one process: on its device, or its share of the host's."""
    if run.device.accelerator == "gpu":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available) // run.device.devices


def kept_small(run: Run, planned: int | None) -> AbstractContextManager[None]:
    """Let a training on a CPU give back at once what it frees, where it needs half of the free memory and more: the
    holes of its heap may take as much again. Elsewhere the heap stays as fast as it is.
    """
    if planned is None or run.device.accelerator == "gpu" or 2 * planned < free_memory(run):
        return nullcontext()
    return given_back()
