"""Start a run on several devices of this host."""

import logging
import os
import signal
import sys
from uuid import uuid4

from pipelines.machine import Device

SHUTDOWN_SECONDS = 120
"""Time the processes have to save themselves after a signal."""
INTERRUPTED, STOPPED = 130, 75


def is_helper() -> bool:
    """Whether this process only trains beside rank 0, and keeps quiet."""
    return int(os.environ.get("RANK", "0")) > 0


def identity() -> str:
    """Return what the processes of one start have in common; empty for a process that was started alone."""
    names = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_ADDR", "MASTER_PORT")
    return ":".join(os.environ[name] for name in names if name in os.environ) if "RANK" in os.environ else ""


def needs_processes(device: Device) -> bool:
    """Whether the run wants more processes than there are yet."""
    return device.devices > 1 and "RANK" not in os.environ


def start(device: Device) -> int:
    """Run this very command once for each device, under torch's elastic agent, and return the first exit code that is
    not 0.

    The console script is started, not a module: a folder of the user's called `configs` must not come before ours.
    The processes say themselves what went wrong; the agent, which knows less, is silent.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ["OMP_NUM_THREADS"] = str(device.threads)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=device.devices,
        run_id=str(uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    try:
        elastic_launch(config, sys.argv[0])(*sys.argv[1:])
    except SignalException as stopped:
        return INTERRUPTED if stopped.sigval == signal.SIGINT else STOPPED
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code  # a negative one is the signal that killed it
    return 0
