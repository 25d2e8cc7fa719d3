"""What to set where a train stage does not fit."""

import json
import math
import shlex
from collections.abc import Iterator
from itertools import product

from configs.errors import UserError
from configs.load import changed
from configs.stages import TrainStage
from configs.strategies import StrategyName
from configs.teachers import Bits, LiveTeacher, ShardedTeacher, bits_of
from distill import adapters
from distill.strategies.precision import AUTOCAST
from pipelines.memory_batches import Asked
from pipelines.memory_facts import Traced, trace
from pipelines.numbers import gigabytes
from pipelines.room import Free
from pipelines.spread import chosen
from pipelines.stage_plan import StagePlan, plan_stage

Overrides = tuple[str, ...]
"""What is put behind a command, before a shell's quotes."""
STRATEGIES: tuple[StrategyName, ...] = ("ddp", "deepspeed_1", "deepspeed_2", "fsdp", "deepspeed_3")
BITS: tuple[Bits, ...] = ("int8", "nf4")
"""What a teacher's weights could be held in."""


def fitting(plan: StagePlan, free: Free) -> Iterator[str]:
    """Yield what to put behind the command so that the stage fits, and what a device then needs; what changes least
    comes first.
    """
    others = _Others(plan, free)
    found: list[tuple[set[str], int]] = []
    for changes, split in sorted(product(_ways(plan), (False, True)), key=lambda way: len(way[0]) + way[1]):
        whole = others.plan(changes)
        if whole is None:
            continue
        fewest = min((parts for less, parts in found if less <= {*changes}), default=math.inf)
        cuts = _cuts(whole) if split else {whole.traced.cut.parts: ()}
        told = [(*changes, *cut) for parts, cut in cuts.items() if parts < fewest]
        if not told or others.fitting(told[-1]) is None:  # the smallest parts: nothing else has to be traced
            continue
        for overrides in told:
            if (other := others.fitting(overrides)) is not None:
                found.append(({*changes}, other.traced.cut.parts))
                yield f"{shlex.join(overrides)} ({gigabytes(other.most)} GB)"
                break


class _Others:
    """A stage with overrides; what is traced once is not traced again."""

    def __init__(self, plan: StagePlan, free: Free) -> None:
        self._asked = plan.asked
        self._free = free
        self._traced: dict[object, Traced] = {_traced_by(plan.asked): plan.traced}

    def fitting(self, overrides: Overrides) -> StagePlan | None:
        """Return the plan under overrides; none where they are refused, or it does not fit."""
        plan = self.plan(overrides)
        return None if plan is None or not plan.fits(self._free) else plan

    def plan(self, overrides: Overrides) -> StagePlan | None:
        """Return the plan under overrides; none where they are refused."""
        try:
            return self._plan(overrides)
        except UserError:
            return None

    def _plan(self, overrides: Overrides) -> StagePlan:
        run = self._asked.run.under(changed(self._asked.run.config, overrides))
        name, stage = self._asked.name, run.config.stages[self._asked.name]
        assert isinstance(stage, TrainStage)
        asked = Asked(run, name, stage, run.device.trainers, self._asked.device, self._asked.look)
        by = _traced_by(asked)
        if by not in self._traced:
            self._traced[by] = trace(asked)
        chosen(run.config.machine, name, stage, self._traced[by].facts)
        return plan_stage(asked, self._traced[by])


def _traced_by(asked: Asked) -> object:
    """Return what decides the facts of a stage; where parts lie is not among it."""
    teacher = asked.run.config.teacher
    if isinstance(teacher, ShardedTeacher):
        teacher = teacher.model_copy(update={"offload": "none"})
    return teacher, asked.devices, asked.stage.training.micro_batch_size


def _cuts(plan: StagePlan) -> dict[int, Overrides]:
    """Return what cuts windows into twice as many micro-batches as now, four times … down to single rows, by their
    number; nothing where that would depend on rows that are not known.
    """
    share, parts = plan.traced.cut.share or 1, plan.traced.cut.parts
    found: dict[int, Overrides] = {}
    while parts < share:
        parts *= 2
        found[parts] = (f"stages.{plan.asked.name}.training.micro_batch_size={math.ceil(share / parts)}",)
    return found


def _ways(plan: StagePlan) -> Iterator[Overrides]:
    """Yield what could be set otherwise, beside the rows of a micro-batch; some of it may be refused."""
    for strategy, teacher in product(_strategies(plan), _teachers(plan)):
        yield (*strategy, *teacher)


def _strategies(plan: StagePlan) -> Iterator[Overrides]:
    """Yield other strategies, of the stage alone: others may not be able to take them."""
    yield ()
    layout = plan.layout
    for name, offload in product(STRATEGIES, (False, True)) if layout.devices > 1 else ():
        same = name == layout.strategy and (name == "ddp" or offload == layout.offload)
        if not same and not (offload and (name == "ddp" or not layout.gpu)):
            told = () if name == layout.strategy else (f"stages.{plan.asked.name}.training.strategy={name}",)
            yield (*told, *_options(plan.asked, name, offload))


def _options(asked: Asked, name: StrategyName, offload: bool) -> Iterator[str]:
    """Yield what options of strategies have to be for one of them: none may be left that belong to no stage's."""
    machine, stages = asked.run.config.machine, asked.run.config.stages
    rest = [stage for key, stage in stages.items() if key != asked.name and isinstance(stage, TrainStage)]
    kept = {(stage.training.strategy or machine.strategy).split("_")[0] for stage in rest}
    for family, options in (("fsdp", machine.fsdp), ("deepspeed", machine.deepspeed)):
        if not name.startswith(family) and family not in kept and options != type(options)():
            yield f"machine.{family}={{}}"
    if name == "fsdp" and machine.fsdp.offload != offload:
        yield f"machine.fsdp.offload={'true' if offload else 'false'}"
    given = machine.deepspeed.offload
    if name.startswith("deepspeed") and ((given != "none") != offload or (given == "nvme" and name != "deepspeed_3")):
        yield f"machine.deepspeed.offload={'cpu' if offload else 'none'}"
        if given == "nvme":
            yield "machine.deepspeed.nvme=null"


def _teachers(plan: StagePlan) -> Iterator[Overrides]:
    """Yield what a teacher that runs could be otherwise."""
    yield ()
    given, layout, run = plan.asked.run.config.teacher, plan.layout, plan.asked.run
    if layout.teacher == "sharded" and layout.gpu and not layout.teacher_offload:
        yield ("teacher.offload=cpu",)
    runs = layout.teacher == "live" or plan.teaching is not None
    if not runs or not isinstance(given, LiveTeacher) or adapters.is_adapter(run.base.folder):
        return
    beside = ("machine.teachers=0",) if run.device.teachers else ()
    dealt_out = (*beside, f"teacher={json.dumps(_dealt_out(plan.asked, given))}")
    if run.device.world > 1:
        yield dealt_out
    if layout.gpu:
        yield (*dealt_out, "teacher.offload=cpu")
    for bits in BITS if bits_of(given) is None else ():
        yield (f"teacher.quantise={bits}",)


def _dealt_out(asked: Asked, given: LiveTeacher) -> dict[str, str]:
    """Return the section of the same model, dealt out; in the type it is computed in."""
    run = asked.run
    lower = AUTOCAST[run.device.precision(asked.stage.training.precision)]
    dtype = given.dtype if given.dtype != "float32" or lower is None else str(lower).removeprefix("torch.")
    usual = str(ShardedTeacher.model_fields["dtype"].default)
    if dtype == "float16" and run.device.accelerator == "cpu":  # which DeepSpeed refuses there
        dtype = usual
    revision = {} if given.revision is None else {"revision": given.revision}
    return {"kind": "sharded", "model": given.model, **revision, **({} if dtype == usual else {"dtype": dtype})}
