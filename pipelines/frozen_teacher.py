"""The teacher of a stage, frozen, as its kind says."""

import torch

from configs.teachers import ShardedTeacher as Sharded
from distill.files import digest
from distill.models import Loaded
from distill.protocols import Teacher
from pipelines.run import Run
from teachers.live import LiveTeacher


def frozen_teacher(run: Run, kind: str, loaded: Loaded, autocast: torch.dtype | None = None) -> Teacher:
    """Freeze a loaded teacher; `autocast` is the type that the training computes products in, if not its own.

    One that is sharded is dealt out once: later stages of the run are given the one that earlier stages had. It stays
    to the end, where it is scored.
    """
    choice, fingerprint, order = run.config.teacher, run.teacher_fingerprint(kind), run.label_order(loaded)
    if not isinstance(choice, Sharded):
        return LiveTeacher(loaded, run.config.task, fingerprint, order, autocast=autocast)
    from teachers.sharded import ShardedTeacher, Weights  # DeepSpeed takes seconds to import

    key = digest(fingerprint, str(order), choice.model_dump_json())
    if key not in run.held:
        weights = Weights(run.teacher_source(kind), choice, run.dtype)
        run.held[key] = ShardedTeacher(loaded, weights, run.config.task, fingerprint, order)
    return run.held[key]
