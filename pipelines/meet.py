"""The group of all ranks, outside of trainings; in trainings Lightning sees to it."""

import torch
import torch.distributed as dist
from lightning.fabric.utilities.distributed import (
    _get_default_process_group_backend_for_device,
    _init_dist_connection,
)

from distill.peers import patience
from pipelines.place import environment, own_device
from pipelines.run import Run


def meet(run: Run) -> torch.device:
    """Have the ranks of a run meet, if they have not yet; return the device of this one."""
    device = torch.device(own_device(run.device.torch_name))
    if run.device.world > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = _get_default_process_group_backend_for_device(device)
        timeout = patience(run.config.machine.timeout, gpu=device.type == "cuda")
        _init_dist_connection(environment(), backend, timeout=timeout)
    return device
