"""Load a sharded teacher, and print for how many seconds each group of processes waits.

python -m tests.helpers.patience MODEL SECONDS
"""

import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from configs.teachers import ShardedTeacher as Choice
from distill.models import ModelSource
from distill.shells import shell
from teachers.sharded import ShardedTeacher, Weights
from tests.helpers import tiny
from tests.helpers.recorded import TASK


def main() -> None:
    """Load, and print."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=int(sys.argv[2])))
    source = ModelSource(sys.argv[1])
    choice = Choice(kind="sharded", model=source.path, dtype="float32")
    facts = shell(source, TASK, tiny.LABELS, "teacher.model")
    ShardedTeacher(facts, Weights(source, choice, torch.float32), TASK, "").to(torch.device("cpu"))
    groups = distributed_c10d._world.pg_map
    print(*(group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in groups))


if __name__ == "__main__":
    main()
