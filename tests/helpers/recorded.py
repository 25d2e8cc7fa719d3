"""Record a sharded teacher in the processes of torch's launcher, in parts and batches small enough to be many.

python -m tests.helpers.recorded MODEL FOLDER [--job N --jobs M] [--die-after PARTS]     writes forwards-JOB-RANK.json
"""

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from configs.data import Task
from configs.teachers import ShardedTeacher as Choice
from distill.data.table import TokenTable
from distill.models import ModelSource, fingerprint
from distill.shells import shell
from distill.types import Batch, Needs, Outputs
from teachers import recording
from teachers.recording import Recording, write_record
from teachers.sharded import ShardedTeacher, Weights
from tests.helpers import tiny, warm

TASK = Task(labels=tiny.LABELS)


class Counted(ShardedTeacher):
    """Counts how often it is asked."""

    asked = 0

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        self.asked += 1
        return super().__call__(batch, needs)


def made_up_table() -> TokenTable:
    """Forty rows, of which ten come twice."""
    draw = np.random.default_rng(0)
    rows = [[2, *draw.integers(5, 90, draw.integers(2, 12)), 3] for _ in range(30)]
    ids = draw.integers(-(2**62), 2**62, 30)
    return TokenTable.of([*rows, *rows[:10]], np.full(40, -100), np.concatenate([ids, ids[:10]]))


def start(model: Path, folder: Path, *options: str, processes: int = 2) -> warm.Started:
    """Begin to record, on processes of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return warm.start("tests.helpers.recorded", str(model), str(folder), *options, processes=processes)


def forwards(folder: Path) -> dict[str, int]:
    """Return how often each rank of each job asked its teacher."""
    found = sorted(folder.glob("forwards-*.json"))
    return {path.stem.removeprefix("forwards-"): json.loads(path.read_text()) for path in found}


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--job", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--die-after", type=int)
    given = parser.parse_args()
    recording.ROWS_A_PART, recording.ROWS_A_BATCH = 8, 3
    dist.init_process_group("gloo")
    source = ModelSource(given.model)
    choice = Choice(kind="sharded", model=source.path, dtype="float32", whole_below=0)
    facts = shell(source, TASK, tiny.LABELS, "teacher.model")
    teacher = Counted(facts, Weights(source, choice, torch.float32), TASK, fingerprint(source))
    cpu = torch.device("cpu")
    teacher.to(cpu)

    def progress(*done: Any) -> None:
        if done[0] == given.die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    what = Recording(teacher, made_up_table(), 0, cpu)
    write_record(what, given.folder, rank=given.job, ranks=given.jobs, progress=progress)
    (given.folder / f"forwards-{given.job}-{dist.get_rank()}.json").write_text(json.dumps(teacher.asked))


if __name__ == "__main__":
    main()
