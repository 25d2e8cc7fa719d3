"""Which process of a start this one is: alone, or one of several that torchrun or srun started."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from configs.errors import UserError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

STARTED_BY_US = "DISTILL_START"
"""Set for the processes that `distill` itself starts on one host: the name of the start."""


@dataclass(frozen=True)
class Place:
    """One process among those that a launcher started together."""

    launcher: Literal["torchrun", "srun"]
    rank: int
    world: int
    """Processes on all hosts."""
    local: int
    """Its number on its own host."""
    host: int
    hosts: int

    @property
    def per_host(self) -> int:
        """Processes of each host. Raise UserError where hosts have different numbers."""
        if self.world % self.hosts:
            raise UserError(f"{self.launcher}: {self.world} processes are not the same number on {self.hosts} hosts")
        return self.world // self.hosts


def here() -> Place | None:
    """Return the place of this process; none where it was started alone.

    torchrun comes first: it may itself run in a task of srun. Raise UserError for a start that is only half described.
    """
    if "RANK" in os.environ:
        return _of_torchrun()
    if "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _of_srun()
    return None


def is_helper() -> bool:
    """Whether this process only trains and writes texts beside rank 0, and keeps quiet."""
    place = here()
    return place is not None and place.rank > 0


def is_sent_back() -> bool:
    """Whether SLURM starts this job once more: what it started before may not have ended on a host that is cut off."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or "0") > 0


def is_started_by_us() -> bool:
    """Whether `distill` itself starts, or started, this process's fellows; it also says what became of them."""
    return STARTED_BY_US in os.environ


def identity() -> str:
    """Return what the processes of one start have in common; empty for a process that was started alone."""
    if is_started_by_us():
        return os.environ[STARTED_BY_US]
    match here():
        case Place(launcher="torchrun", hosts=hosts):
            names = ["TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"]
            own = [_attempt()] if hosts == 1 else []
        case Place(launcher="srun"):
            names, own = ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"], []
        case _:
            return ""
    return ":".join([os.environ[name] for name in names if name in os.environ] + own)


def _attempt() -> str:
    """Return the folder of one start of a torchrun, which has a random name; run id, address and port are those of the
    last start unless somebody chose others.
    """
    return str(Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).parent.parent)


def environment() -> "ClusterEnvironment":
    """Return Lightning's view of the place. It would guess SLURM wherever a job surrounds the process, and requeue by
    itself, saving inside of a signal handler.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    match here():
        case Place(launcher="torchrun"):
            return TorchElasticEnvironment()
        case Place(launcher="srun"):
            return SLURMEnvironment(auto_requeue=False)
        case _:
            return LightningEnvironment()


def share() -> tuple[int, int]:
    """Return which of how many workers this process is, those of the other jobs of an array counted."""
    place, (job, jobs) = here(), job_of_array()
    rank, world = (place.rank, place.world) if place else (0, 1)
    return (job * world + rank) % (jobs * world), jobs * world


def job_of_array() -> tuple[int, int]:
    """Return which of how many jobs of an array this one is."""
    job = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")) - int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
    jobs = int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1"))
    return job % jobs, jobs


def own_device(name: str) -> str:
    """Return the device of this process: of several started together on a host, each has its own GPU."""
    place = here()
    return f"cuda:{place.local}" if name == "cuda" and place is not None else name


def _of_torchrun() -> Place:
    needed = ("WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise UserError(f"RANK is set, {', '.join(missing)} {are} not: start with torchrun, or unset RANK to run alone")
    return Place("torchrun", *map(_number, ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")))


def _of_srun() -> Place:
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError("srun: give the tasks of a host by --ntasks-per-node, not by --ntasks alone")
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_NODES")
    return Place("srun", *map(_number, names))


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise UserError(f"{name}: {os.environ[name]!r} is no number; the launcher of this process sets it") from None
