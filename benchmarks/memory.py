"""Peak memory of a step: each variant in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.report import ROOT
from benchmarks.workload import Workload

STEPS = 3
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def measure(work: Workload, variant: str, threads: int) -> float:
    """Return the megabytes a variant needs at its peak, in a fresh process: `textbrewer`, `fp32` or `bf16`."""
    command = [sys.executable, "-m", "benchmarks", "peak-memory", variant, str(work.folder), "--threads", str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(f"the memory of {variant} could not be measured: {done.stderr.strip()[-800:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak(variant: str, work: Workload, threads: int) -> float:
    """Train some steps here and return the peak of resident memory in them above that of the imports, in megabytes.

    Models, optimiser and batches count; what only loading them took does not.
    """
    from benchmarks.brewer import Brewer
    from benchmarks.ours import Bare, Trained
    from configs.training import Machine
    from pipelines.machine import prepare

    device = prepare(Machine(threads=threads))
    import_all(variant)
    before = _kilobytes("VmRSS")
    precision = "bf16" if variant == "bf16" else "fp32"
    trained = Trained(
        work.stage(device, f"memory-{variant}", training={"precision": precision}), work.folder / "memory"
    )
    if variant == "textbrewer":
        brewer = Brewer(work.folder / "teacher", trained, work.folder / "memory")
        batches = Bare(trained, bf16=False).batches(0, STEPS)
        del trained
        _CLEAR.write_text(RESET_PEAK)
        brewer.lap(batches)
    else:
        _CLEAR.write_text(RESET_PEAK)
        trained.lap(0, STEPS - 1)
    return (_kilobytes("VmHWM") - before) / 1024


def import_all(variant: str) -> None:
    """Load what training loads anyway, so that code does not count as memory of a step."""
    import importlib

    for name in ("lightning.pytorch.loggers", "torch.utils.tensorboard", "torch._dynamo"):
        importlib.import_module(name)
    if variant == "textbrewer":
        importlib.import_module("textbrewer")


def _kilobytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{_STATUS} has no {field}: peak memory is measured on Linux only")
    return int(found[1])
