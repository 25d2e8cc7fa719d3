"""Start a run on several devices of this host."""

import os
import subprocess
import sys

from pipelines.machine import Device


def is_helper() -> bool:
    """Whether this process only trains beside rank 0, and keeps quiet."""
    return int(os.environ.get("RANK", "0")) > 0


def needs_processes(device: Device) -> bool:
    """Whether the run wants more processes than there are yet."""
    return device.devices > 1 and "RANK" not in os.environ


def start(device: Device) -> int:
    """Run this very command once for each device, by torchrun, and return its exit code.

    The console script is started, not a module: a folder of the user's called `configs` must not come before ours.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    command = [*torchrun, f"--nproc-per-node={device.devices}", *sys.argv]
    threads = {"OMP_NUM_THREADS": str(device.threads)}
    return subprocess.run(command, check=False, env={**os.environ, **threads}).returncode
