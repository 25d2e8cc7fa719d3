"""The teacher of a stage, frozen, as its kind says."""

import torch

from configs.teachers import ShardedTeacher as Sharded
from distill.models import Loaded
from distill.protocols import Teacher
from pipelines.run import Run
from teachers.live import LiveTeacher


def frozen_teacher(run: Run, kind: str, loaded: Loaded, autocast: torch.dtype | None = None) -> Teacher:
    """Freeze a loaded teacher; `autocast` is the type that the training computes products in, if not its own."""
    given = (run.config.task, run.teacher_fingerprint(kind), run.label_order(loaded))
    choice = run.config.teacher
    if not isinstance(choice, Sharded):
        return LiveTeacher(loaded, *given, autocast=autocast)
    from teachers.sharded import ShardedTeacher, Weights  # DeepSpeed takes seconds to import

    return ShardedTeacher(loaded, Weights(run.teacher_source(kind), choice, run.dtype), *given)
