"""What a run must be like where some devices only teach."""

from configs.references import Findings, Parts
from configs.stages import TrainStage
from configs.teachers import AbsentTeacher, ShardedTeacher


def check_machine(parts: Parts) -> Findings:
    """Check that devices that only teach have something to do."""
    if parts.machine is None or not parts.machine.teachers:
        return
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
