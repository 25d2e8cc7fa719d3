"""A run on GPUs that are not here: memory by the planner, network and speed on paper."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from configs.pipeline import Pipeline
from configs.stages import TrainStage
from pipelines.fitting import fitting
from pipelines.machine import Device, check_teachers
from pipelines.memory_batches import Asked
from pipelines.memory_facts import trace
from pipelines.memory_plan import table
from pipelines.numbers import gigabytes, short
from pipelines.room import Free
from pipelines.run import Run
from pipelines.spread import chosen
from pipelines.stage_plan import StagePlan, plan_stage

RESERVED = 0.05
"""Part of a memory that is not to be planned with: the driver's context, the system, what allocators cannot fill."""


@dataclass(frozen=True)
class Cluster:
    """Hosts of equal GPUs."""

    nodes: int
    gpus: int
    """Of each host."""
    memory: float
    """Bytes of each."""
    network: float
    """Bytes a second that each sends and receives."""
    flops: float
    """Products and sums a second of each, at its peak."""
    utilisation: float
    """Part of that which is reached."""
    host_memory: float | None = None
    """Bytes of each host, beside its GPUs; none: as many as are needed."""

    @property
    def devices(self) -> int:
        """All of them."""
        return self.nodes * self.gpus

    @property
    def free(self) -> Free:
        """What a process may take of a GPU and of its host."""
        host = None if self.host_memory is None else int(self.host_memory / self.gpus * (1 - RESERVED))
        return Free(int(self.memory * (1 - RESERVED)), host)


@dataclass(frozen=True)
class Pace:
    """How fast a step is, on paper: an estimate, not a measurement."""

    gathered: float
    """Bytes each device receives of the teacher in a forward pass: all parts but its own."""
    network_seconds: float
    compute_seconds: float
    tokens: float
    """Of all devices together, in a micro-batch of each."""

    @property
    def slowest(self) -> float:
        """Tokens a second where nothing of the network is hidden behind computing."""
        return self.tokens / (self.network_seconds + self.compute_seconds)

    @property
    def fastest(self) -> float:
        """Tokens a second where all of it is that can be."""
        return self.tokens / max(self.network_seconds, self.compute_seconds)


def pace(plan: StagePlan, cluster: Cluster) -> Pace:
    """Work a micro-batch out: 2 products and sums a weight and token forward, 6 forward and backward; 4 for weights
    that stay, whose own gradients are not computed (Kaplan et al. 2020). Attention itself, a few per cent at some
    thousand tokens, is left out. Devices that only teach compute at the same time, and whoever has less of it waits;
    what they send is left out too.
    """
    traced, devices = plan.traced, plan.layout.devices
    tokens = traced.rows * traced.positions
    dealt_out = plan.layout.teacher == "sharded"
    gathered = (traced.teacher.whole - traced.teacher.small) * (devices - 1) / devices if dealt_out else 0.0
    work = tokens * (2 * traced.teacher_size + 6 * traced.learner.trained + 4 * traced.frozen_size)
    if traced.teaching is not None:
        asked_by = ceil(devices / plan.asked.run.device.teachers)
        work = max(work, asked_by * tokens * 2 * traced.teaching.size)
    return Pace(gathered, gathered / cluster.network, work / (cluster.flops * cluster.utilisation), tokens * devices)


def show(pipeline: Pipeline, cluster: Cluster, console: Console, scratch: Path, *, allow_code: bool) -> bool:
    """Print the plan of each train stage, and return whether all fit. Raise UserError for models, objectives and
    strategies that do not go together, and for devices that cannot only teach.
    """
    teachers = pipeline.machine.teachers
    device = Device("gpu", cluster.gpus, 1, fast_fp32=False, native_bf16=True, nodes=cluster.nodes, teachers=teachers)
    check_teachers(device)
    run = Run(pipeline, device, console, allow_code=allow_code, cache=scratch)
    stages = {name: stage for name, stage in pipeline.stages.items() if isinstance(stage, TrainStage)}
    asked = [Asked(run, name, stage, device.trainers, device.torch_name, look=False) for name, stage in stages.items()]
    plans = [_planned(one) for one in asked]
    free = cluster.free
    console.print(table(plans, free))
    console.print(_paces(plans, cluster))
    lacking = [plan for plan in plans if not plan.fits(free)]
    for plan in lacking:
        told = "; ".join(fitting(plan, free)) or "nothing that could be set"
        said = f"stages.{plan.asked.name} does not fit; what would, as planned: {told}"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    return not lacking


def _planned(asked: Asked) -> StagePlan:
    """Plan a stage whose strategy a run would take at set-up."""
    traced = trace(asked)
    chosen(asked.run.config.machine, asked.name, asked.stage, traced.facts)
    return plan_stage(asked, traced)


def _paces(plans: list[StagePlan], cluster: Cluster) -> Table:
    shown = Table(title="speed on paper", title_justify="left", box=None, padding=(0, 2, 0, 2))
    shown.add_column("")
    for plan in plans:
        shown.add_column(plan.asked.name, justify="right")
    paces = [pace(plan, cluster) for plan in plans]
    shown.add_row("teacher's weights received, GB a pass", *(gigabytes(one.gathered) for one in paces))
    shown.add_row("network, s a pass", *(short(one.network_seconds) for one in paces))
    shown.add_row("computing, s a pass", *(short(one.compute_seconds) for one in paces))
    shown.add_row("tokens/s of all", *(f"{one.slowest:,.0f} – {one.fastest:,.0f}" for one in paces))
    return shown
