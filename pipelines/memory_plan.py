"""What a run needs of memory, printed before anything is loaded; and what would fit where it does not."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from rich.table import Table

from configs.checks import check, parts_of
from configs.errors import UserError
from configs.stages import TrainStage
from configs.teachers import Bits, ShardedTeacher, Teacher, bits_of
from configs.teachers import LiveTeacher as GivenTeacher
from distill.errors import ModelError
from distill.strategies.limits import check as check_strategy
from distill.strategies.memory_laws import Layout, Need, fullest, teaching
from pipelines.memory_batches import Asked
from pipelines.memory_facts import Traced, trace
from pipelines.numbers import gigabytes
from pipelines.room import Free, free_for
from pipelines.run import Run

SHOWN = 4
"""Settings that would fit, told at most."""
BITS: tuple[Bits, ...] = ("int8", "nf4")
"""What a teacher's weights could be held in."""
_STRATEGIES = ("ddp", "deepspeed_1", "deepspeed_2", "fsdp", "deepspeed_3")


@dataclass(frozen=True)
class StagePlan:
    """What a train stage needs, and why."""

    asked: Asked
    traced: Traced
    layout: Layout
    need: Need
    teaching: Need | None = None
    """Of a device that only teaches, where there are some."""

    def fits(self, free: Free) -> bool:
        """Whether all devices hold what they need."""
        return free.holds(self.need) and (self.teaching is None or free.holds(self.teaching))


@dataclass(frozen=True)
class Setting:
    """A way to lay a stage out that differs from the one it has."""

    changes: frozenset[str]
    """Keys that say so, with their values; not of `micro`."""
    layout: Layout
    micro: int
    """Rows a device takes at a time."""
    bits: Bits | None = None
    """How the teacher is quantised, if otherwise than it is."""


def check_memory(run: Run) -> dict[str, int]:
    """Print the plan of all train stages, and return the bytes each needs of a device. Raise ModelError where one does
    not fit, with what would. Stages that cannot be planned are left out: what is wrong with them is told by the checks
    that follow.
    """
    found = [*_plans(run)]
    if not found:
        return {}
    free = free_for(run)
    run.console.print(table(found, free))
    for plan in found:
        if plan.fits(free):
            continue
        if not plan.traced.assumed:
            raise ModelError(_refusal(plan, free))
        run.screen.warning(f"{_lacks(plan, free)}, if its rows are as long as task.max_length lets them be")
    return {plan.asked.name: plan.need.total for plan in found}


def _plans(run: Run) -> Iterator[StagePlan]:
    for name, stage in run.config.stages.items():
        if not isinstance(stage, TrainStage):
            continue
        try:
            yield plan_stage(Asked(run, name, stage, run.device.trainers, run.device.torch_name))
        except UserError:
            continue
        except Exception as error:  # terms of the user's own, and new architectures, may look at values
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            run.screen.warning(f"stages.{name}: its memory cannot be planned: {reason}")


def plan_stage(asked: Asked) -> StagePlan:
    """Trace a stage and apply the law of its strategy."""
    traced = trace(asked)
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
        accumulates=traced.accumulates,
        kernels=traced.kernels if asked.device == "cpu" and asked.run.device.native_bf16 else 0,
        teacher=traced.teacher_kind,
        teacher_offload=isinstance(teacher, ShardedTeacher) and teacher.offload == "cpu",
    )


def table(plans: list[StagePlan], free: Free | None = None) -> Table:
    """Show the parts of each stage, in GB of one device."""
    shown = Table(title="memory of a device, GB", title_justify="left", box=None, padding=(0, 2, 0, 2))
    shown.add_column("")
    for plan in plans:
        shown.add_column(plan.asked.name, justify="right", overflow="fold")
    names = [field.name for field in fields(Need) if field.name != "host"]
    for name in names:
        sizes = [getattr(plan.need, name) for plan in plans]
        shown.add_row(name, *(gigabytes(size) if size else "–" for size in sizes))
    shown.add_row("[bold]all[/]", *(f"[bold]{gigabytes(plan.need.total)}[/]" for plan in plans))
    if any(plan.teaching for plan in plans):
        apart = ["–" if plan.teaching is None else gigabytes(plan.teaching.total) for plan in plans]
        shown.add_row("all, where it only teaches", *apart)
    batches = [f"{plan.traced.rows} × {plan.traced.positions}" for plan in plans]
    shown.add_row("rows × tokens", *(f"≤ {b}" if p.traced.assumed else b for p, b in zip(plans, batches, strict=True)))
    shown.add_row("strategy", *(_strategy_of(plan.layout) for plan in plans))
    if free is not None:
        shown.add_row("free", *(gigabytes(free.device) for _ in plans))
    if any(plan.need.host for plan in plans):
        shown.add_row("beside, on the host", *(gigabytes(plan.need.host) for plan in plans))
        if free is not None and free.host is not None:
            shown.add_row("free on the host", *(gigabytes(free.host) for _ in plans))
    return shown


def _strategy_of(layout: Layout) -> str:
    return layout.strategy if layout.devices > 1 else "one device"


def _lacks(plan: StagePlan, free: Free) -> str:
    where, needed, there = "a device", plan.need.total, free.device
    if plan.teaching is not None and free.holds(plan.need):
        where, needed = "a device that only teaches", plan.teaching.total
    elif needed <= there and free.host is not None:
        where, needed, there = "the host for each of its devices", plan.need.host, free.host
    return f"stages.{plan.asked.name}: needs {gigabytes(needed)} GB of {where}, {gigabytes(there)} GB are free"


def _refusal(plan: StagePlan, free: Free) -> str:
    fits = [*(_taught if free.holds(plan.need) else fitting)(plan, free)][:SHOWN]
    told = "; ".join(fits) if fits else "nothing that could be set does; take fewer or smaller layers, or more devices"
    return f"{_lacks(plan, free)}; what would fit, as planned: {told}"


def fitting(plan: StagePlan, free: Free) -> Iterator[str]:
    """Yield settings that would fit, those that change least first."""
    found: list[Setting] = []
    traces = {plan.traced.rows: plan.traced}
    for setting in sorted(_settings(plan), key=lambda setting: len(_told(plan, setting))):
        if any(known.changes <= setting.changes and known.micro >= setting.micro for known in found):
            continue
        if setting.micro not in traces:
            traces[setting.micro] = trace(_smaller(plan.asked, setting.micro))
        traced = traces[setting.micro]
        layout = replace(setting.layout, accumulates=traced.accumulates)
        teacher = traced.teacher if setting.bits is None else traced.quantised[setting.bits]
        need = fullest(traced.learner, teacher, traced.moments, layout)
        if free.holds(need):
            found.append(setting)
            yield f"{' '.join(_told(plan, setting))} ({gigabytes(need.total)} GB)"


def _taught(plan: StagePlan, free: Free) -> Iterator[str]:
    """Yield what would fit where the teacher is too large for a device that only teaches."""
    traced, layout, given = plan.traced, plan.layout, plan.asked.run.config.teacher
    if traced.teaching is None or not isinstance(given, GivenTeacher) or bits_of(given) is not None:
        return
    for bits in BITS:
        need = teaching(traced.quantised[bits], traced.teaching.fullest, layout)
        if _may_teach(plan, given.model_copy(update={"quantise": bits})) and free.holds(need):
            yield f"teacher.quantise={bits} ({gigabytes(need.total)} GB)"
    dealt_out = replace(layout, devices=plan.asked.run.device.world, teacher="sharded")
    need = fullest(traced.learner, traced.teaching.weights, traced.moments, dealt_out)
    if free.holds(need):
        yield f"machine.teachers=0 teacher.kind=sharded ({gigabytes(need.total)} GB)"


def _told(plan: StagePlan, setting: Setting) -> list[str]:
    rows = [f"stages.{plan.asked.name}.training.micro_batch_size={setting.micro}"]
    return sorted(setting.changes) + (rows if setting.micro < plan.traced.rows else [])


def _settings(plan: StagePlan) -> Iterator[Setting]:
    """Yield what could be set otherwise."""
    micros = [plan.traced.rows >> halvings for halvings in range(plan.traced.rows.bit_length())]
    for (told, layout), (more, teacher, bits), micro in product(_strategies(plan), _teachers(plan), micros):
        if told or more or micro < plan.traced.rows:
            yield Setting(frozenset(told | more), replace(layout, **teacher), micro, bits)


def _strategies(plan: StagePlan) -> Iterator[tuple[set[str], Layout]]:
    yield set(), plan.layout
    for name in _STRATEGIES if plan.layout.devices > 1 else ():
        try:
            check_strategy(name, plan.asked.run.config.machine, plan.traced.facts, "")  # type: ignore[arg-type]
        except UserError:
            continue
        layout = replace(plan.layout, strategy=name, offload=False, disk=False)  # type: ignore[arg-type]
        if name != plan.layout.strategy:
            yield {f"machine.strategy={name}"}, layout
        if plan.layout.gpu and name != "ddp" and not plan.layout.offload:
            key = "machine.fsdp.offload=true" if name == "fsdp" else "machine.deepspeed.offload=cpu"
            yield {f"machine.strategy={name}", key}, replace(layout, offload=True)


def _teachers(plan: StagePlan) -> Iterator[tuple[set[str], dict[str, Any], Bits | None]]:
    """Yield what a teacher could be otherwise, where no other stage needs it as it is."""
    yield set(), {}, None
    given, layout = plan.asked.run.config.teacher, plan.layout
    if layout.teacher == "sharded" and layout.gpu and not layout.teacher_offload:
        yield {"teacher.offload=cpu"}, {"teacher_offload": True}, None
    if layout.teacher != "live" or not isinstance(given, GivenTeacher):
        return
    if _may_teach(plan, ShardedTeacher(kind="sharded", model=given.model)):
        if layout.devices > 1:
            yield {"teacher.kind=sharded"}, {"teacher": "sharded"}, None
        if layout.gpu:
            offloaded = {"teacher": "sharded", "teacher_offload": True}
            yield {"teacher.kind=sharded", "teacher.offload=cpu"}, offloaded, None
    for bits in BITS if bits_of(given) is None else ():
        if _may_teach(plan, given.model_copy(update={"quantise": bits})):
            yield {f"teacher.quantise={bits}"}, {}, bits


def _may_teach(plan: StagePlan, teacher: Teacher) -> bool:
    """Whether the run's parts would fit together with another teacher."""
    return not any(check(parts_of(plan.asked.run.config.model_copy(update={"teacher": teacher}))))


def _smaller(asked: Asked, micro: int) -> Asked:
    training = asked.stage.training.model_copy(update={"micro_batch_size": micro})
    return replace(asked, stage=asked.stage.model_copy(update={"training": training}))
