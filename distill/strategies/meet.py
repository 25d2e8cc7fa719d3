"""DeepSpeed's view of the processes: it is torch's."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import deepspeed

_PLACE = "LOCAL_RANK"


def meet(backend: str) -> None:
    """Let DeepSpeed join torch's group of processes, which is there already."""
    with redirect_stdout(io.StringIO()):  # every process would say that it built an extension
        deepspeed.init_distributed(dist_backend=backend)


@contextmanager
def told_its_place(local_rank: int) -> Iterator[None]:
    """Set the variable DeepSpeed reads; left behind, it would tell a later training of a launcher that is not there."""
    before = os.environ.get(_PLACE)
    os.environ[_PLACE] = str(local_rank)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PLACE]
