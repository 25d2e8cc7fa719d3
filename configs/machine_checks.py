"""What a run must be like for what its machine is told to be of use."""

from configs.references import Findings, Parts
from configs.stages import TrainStage
from configs.strategies import DeepSpeed, Fsdp
from configs.teachers import AbsentTeacher, ShardedTeacher
from configs.training import Machine


def check_machine(parts: Parts) -> Findings:
    """Check that devices that only teach have something to do, and that options of a strategy belong to one."""
    if parts.machine is None:
        return
    yield from _check_options(parts, parts.machine)
    if parts.machine.teachers:
        yield from _check_teachers(parts)


def _check_options(parts: Parts, machine: Machine) -> Findings:
    trained = [stage for stage in parts.stages.values() if isinstance(stage, TrainStage)]
    chosen = {stage.training.strategy or machine.strategy for stage in trained}
    if not trained or None in parts.stages.values():
        return
    for name, is_told in (("deepspeed", machine.deepspeed != DeepSpeed()), ("fsdp", machine.fsdp != Fsdp())):
        if is_told and not any(strategy.startswith(name) for strategy in chosen):
            yield ("machine", name), f"no stage is trained by {name}, whose options these are (machine.strategy)"


def _check_teachers(parts: Parts) -> Findings:
    path = ("machine", "teachers")
    match parts.teacher:
        case AbsentTeacher():
            yield path, "there is no teacher to run (teacher.kind: none); leave it out"
            return
        case ShardedTeacher():
            yield path, "a sharded teacher (teacher.kind) is dealt out over the devices that train; take `kind: live`"
            return
    stages = [(name, stage) for name, stage in parts.stages.items() if stage is not None]
    trained = {name: stage for name, stage in stages if isinstance(stage, TrainStage)}
    if not any(stage.runs_teacher for stage in trained.values()) and len(stages) == len(parts.stages):
        why = "; ".join(f"stages.{name} {_instead(stage)}" for name, stage in trained.items())
        yield path, f"no stage asks a teacher in its steps{f' ({why})' if why else ''}; leave it out"


def _instead(stage: TrainStage) -> str:
    if stage.trains == "teacher":
        return "trains the teacher"
    return "reads a record (cache)" if stage.cache is not None else f"has `teacher: {stage.teacher}`"
