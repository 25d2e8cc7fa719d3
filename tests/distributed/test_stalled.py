"""Who is waited for is named where a group of processes would wait for far longer, as NCCL's does."""

import os
import re
import subprocess
import sys
from pathlib import Path
from socket import socket

from tests.helpers import tiny, warm

ROOT = Path(__file__).parents[2]
RANKS, HANGS, TIMEOUT = 3, 1, 3
SCRIPT = """
import sys, time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.ranks import Ranks

def hang():
    time.sleep(600)

dist.init_process_group("gloo", timeout=timedelta(seconds=600))
with Ranks(Path(sys.argv[1]), timeout=int(sys.argv[2])):
    dist.all_reduce(torch.ones(1))
    if dist.get_rank() == int(sys.argv[3]):
        hang()
    dist.all_reduce(torch.ones(1))
"""


def test_the_rank_that_began_fewer_collectives_than_others_is_named(tmp_path):
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    many = {
        "WORLD_SIZE": RANKS,
        "GROUP_RANK": 0,
        "GROUP_WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(TIMEOUT), str(HANGS)]
    started = []
    for rank in range(RANKS):
        own = {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "stalled", "PYTHONPATH": ROOT}
        environment = {**os.environ, **{name: str(value) for name, value in (many | own).items()}}
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    try:
        said = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [1] * RANKS, said
    told = rf"error: rank {HANGS} on host \S+ did not answer for {TIMEOUT} s; it is at <string>:\d+, in hang; "
    assert re.match(told, said[0]) and said[1:] == [""] * (RANKS - 1), said


def test_groups_that_deepspeed_makes_wait_as_long_as_torchs_own(tmp_path):
    done = warm.start("tests.helpers.patience", str(tiny.model_folder(tmp_path)), "77", processes=1).ended()
    assert done.returncode == 0, done.stderr[-3000:]
    waits = done.stdout.splitlines()[-1].split()
    assert len(waits) > 1 and {*waits} == {"77.0"}
