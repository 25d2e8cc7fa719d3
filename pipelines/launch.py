"""Start a run on several devices of this host."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from configs.errors import UserError
from distill.errors import RankError
from distill.exit_codes import INTERRUPTED, REFUSED, STOPPED, of_stop
from pipelines.machine import Device
from pipelines.place import STARTED_BY_US, here
from pipelines.ranks import meeting_point, told

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

SHUTDOWN_SECONDS = 120
"""Time the processes have at least to save themselves after a signal; more where a step may take longer."""


def needs_processes(device: Device) -> bool:
    """Whether the run wants more processes than there are yet. Raise UserError where they are to be on other hosts."""
    if here() is not None:
        return False
    if device.nodes > 1:
        raise UserError(
            f"machine.nodes: {device.nodes} hosts were asked for, and this process was started alone: torchrun, run on "
            "each host, or `distill slurm` starts them"
        )
    return device.devices > 1


def start(device: Device, run: Path, timeout: float) -> int:
    """Run this very command once for each device, under torch's elastic agent, and return an exit code. Raise RankError
    where one of the processes failed, died or hung.

    The console script is started, not a module: a folder of the user's called `configs` must not come before ours.
    The processes say themselves what went wrong, as far as they can; the agent is silent.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[STARTED_BY_US] = str(uuid4())
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=device.devices,
        run_id=os.environ[STARTED_BY_US],
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        shutdown_timeout=max(SHUTDOWN_SECONDS, int(timeout)),
    )
    try:
        elastic_launch(config, sys.argv[0])(*sys.argv[1:])
    except SignalException as stopped:
        return of_stop(stopped.sigval)
    except ChildFailedError as failed:
        return _failed(failed, run, timeout)
    return 0


def _failed(failed: "ChildFailedError", run: Path, timeout: float) -> int:
    """Return the exit code of a process that said itself why it ended; raise RankError for one that could not."""
    code = failed.get_first_failure()[1].exitcode
    if code in (REFUSED, STOPPED, INTERRUPTED):
        return code
    exits = {
        rank: f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
        for rank, failure in failed.failures.items()
    }
    raise RankError(told(run, meeting_point(run), timeout, exits))
