"""What a train stage needs of a device's memory, from what was traced and the law of its strategy."""

from dataclasses import dataclass, replace

from configs.strategies import StrategyName
from configs.teachers import ShardedTeacher
from distill.strategies.deepspeed_config import Keeping, deepspeed_config, keeping
from distill.strategies.memory_laws import Layout, Need, fullest, teaching
from pipelines.memory_batches import Asked
from pipelines.memory_facts import Traced, trace
from pipelines.room import Free


@dataclass(frozen=True)
class StagePlan:
    """What a train stage needs, and why."""

    asked: Asked
    traced: Traced
    layout: Layout
    need: Need
    teaching: Need | None = None
    """Of a device that only teaches, where there are some."""

    @property
    def most(self) -> int:
        """Bytes of the device that needs most."""
        return max(need.total for need in (self.need, self.teaching) if need is not None)

    def fits(self, free: Free) -> bool:
        """Whether all devices hold what they need."""
        return free.holds(self.need) and (self.teaching is None or free.holds(self.teaching))


def plan_stage(asked: Asked, traced: Traced | None = None) -> StagePlan:
    """Trace a stage, unless that is done already, and apply the law of its strategy."""
    traced = traced or trace(asked)
    layout = _layout(asked, traced)
    need = fullest(traced.learner, traced.teacher, traced.moments, layout)
    apart = traced.teaching
    if apart is None:
        return StagePlan(asked, traced, layout, need)
    alone = replace(layout, kernels=apart.kernels if layout.kernels else 0)
    return StagePlan(asked, traced, layout, need, teaching(apart.weights, apart.fullest, alone))


def _layout(asked: Asked, traced: Traced) -> Layout:
    machine, teacher = asked.run.config.machine, asked.run.config.teacher
    strategy = asked.stage.training.strategy or machine.strategy
    offload = machine.fsdp.offload if strategy == "fsdp" else machine.deepspeed.offload != "none"
    return Layout(
        strategy="ddp" if strategy == "auto" else strategy,
        devices=asked.devices,
        gpu=asked.device == "cuda",
        offload=offload,
        disk=strategy == "deepspeed_3" and machine.deepspeed.offload == "nvme",
        accumulates=traced.cut.accumulates,
        kernels=traced.kernels if asked.device == "cpu" and asked.run.device.native_bf16 else 0,
        teacher=traced.teacher_kind,
        teacher_offload=isinstance(teacher, ShardedTeacher) and teacher.offload == "cpu",
        keeping=_keeping(asked, traced, strategy),
        neighbours=asked.run.device.devices,
    )


def _keeping(asked: Asked, traced: Traced, strategy: StrategyName) -> Keeping:
    """Return what DeepSpeed will keep, told by the very configuration that the training gives it."""
    if not strategy.startswith("deepspeed"):
        return Keeping()
    options = asked.run.config.machine.deepspeed
    return keeping(deepspeed_config(int(strategy[-1]), asked.stage.training, options, traced.facts))
