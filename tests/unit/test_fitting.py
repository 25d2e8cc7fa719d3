"""What is told to fit is put behind the command, as it stands there, and gives the plan it says."""

import re
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from configs.load import load
from pipelines.fitting import fitting
from pipelines.machine import Device
from pipelines.memory_batches import Asked
from pipelines.numbers import gigabytes
from pipelines.room import Free
from pipelines.run import Run
from pipelines.stage_plan import StagePlan, plan_stage
from tests.helpers import outlines

SHARDED = "'teacher=SHARDED'"
OWN = "stages.student.training.strategy="
CASES = {
    "a stage that says how it is spread": ((f"{OWN}ddp",), (SHARDED, "teacher.quantise=nf4", f"{OWN}deepspeed_3")),
    "a teacher in 4 bits": (
        ("teacher.quantise=nf4", "stages.student.training.precision=bf16"),
        (f"{SHARDED} teacher.offload=cpu",),
    ),
    "a teacher of its own": (
        ("machine.teachers=1",),
        ("teacher.quantise=int8", f"machine.teachers=0 {SHARDED}"),
    ),
    "a host that is full": (
        ("machine.strategy=deepspeed_3", "machine.deepspeed.offload=nvme", "machine.deepspeed.nvme=/tmp"),
        ("machine.deepspeed.offload=none machine.deepspeed.nvme=null", f"{OWN}ddp 'machine.deepspeed={{}}'"),
    ),
}
"""What a run is told already, and what is to be among what fits then."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return outlines.run_file(tmp_path_factory.mktemp("fitting"))


def _planned(run: Path, *overrides: str) -> StagePlan:
    config = load(str(run), overrides).pipeline
    device = Device("gpu", 4, 1, fast_fp32=False, teachers=config.machine.teachers)
    asked = Run(config, device, Console(quiet=True), cache=run.parent / "cache")
    return plan_stage(Asked(asked, "student", config.stages["student"], device.trainers, "cuda", look=False))


@pytest.mark.parametrize("name", CASES)
def test_what_is_told_is_accepted_and_gives_the_plan_it_says(run, name):
    given, expected = CASES[name]
    plan = _planned(run, *given)
    free = Free(int(0.97 * plan.most), plan.need.host - 1 if plan.need.host else None)
    told = [*fitting(plan, free)]
    short = [re.sub(r"'teacher=\{.*\}'", SHARDED, one) for one in told]
    for wanted in expected:
        found = [one for one, known in zip(told, short, strict=True) if known.startswith(wanted)]
        assert found, (wanted, told)
        said = re.fullmatch(r"(.+) \((\S+) GB\)", found[0])
        assert said, found
        other = _planned(run, *given, *shlex.split(said[1]))
        assert other.fits(free) and gigabytes(other.most) == said[2], found[0]
