"""What a run needs of memory, printed before anything is loaded; and what would fit where it does not."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import islice

from rich.table import Table

from configs.errors import UserError
from configs.stages import TrainStage
from distill.errors import ModelError
from distill.strategies.memory_laws import Layout, Need
from pipelines.fitting import fitting
from pipelines.memory_batches import Asked
from pipelines.numbers import gigabytes
from pipelines.room import Free, free_for
from pipelines.run import Run
from pipelines.stage_plan import StagePlan, plan_stage

SHOWN = 4
"""Settings that would fit, told at most."""


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
    fits = [*islice(fitting(plan, free), SHOWN)]
    told = "; ".join(fits) if fits else "nothing that could be set does; take fewer or smaller layers, or more devices"
    return f"{_lacks(plan, free)}; what would fit, as planned: {told}"
