"""What the page on clusters shows is what the program does."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from configs.load import load
from distill import exit_codes
from pipelines import slurm

DOCS = Path(__file__).parents[2] / "docs"
CODES = (exit_codes.FAILED, exit_codes.REFUSED, exit_codes.STOPPED, exit_codes.INTERRUPTED)
PAGE = (DOCS / "clusters.md").read_text(encoding="utf-8")


def test_the_batch_file_of_the_page_is_the_one_that_is_written(monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: Path("/shared/me"))
    monkeypatch.setattr(slurm, "_program", lambda: ["/shared/me/.venv/bin/distill"])
    arguments = ["tinybert/sst2", "teacher.model=PATH"]
    folder = Path("/shared/me/runs/tinybert-sst2")
    job = slurm.Job("tinybert/sst2", arguments, folder, nodes=2, gpus=4, cpus=8, time="08:00:00")
    assert re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) == [slurm.batch_file(job)]


def _torchrun(command: list[str]) -> argparse.Namespace:
    """Read a command as torchrun does."""
    assert command[0] == "torchrun"
    return get_args_parser().parse_args(command[1:])


def test_a_run_that_stops_in_order_under_torchrun_ends_with_1_and_the_page_says_so(tmp_path):
    program = tmp_path / "distill"
    program.write_text(f"#!/bin/sh\nexit {exit_codes.STOPPED}\n", encoding="utf-8")
    program.chmod(0o755)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", str(program)]
    assert subprocess.run(command, capture_output=True, timeout=200, check=False).returncode == 1
    assert "torchrun ends with 0 or 1" in PAGE


def test_the_options_of_torchrun_on_the_page_are_its_own():
    (options,) = re.findall(r"`(--shutdown-timeout\S+ \S+)`", PAGE)
    given = _torchrun(["torchrun", *options.split(), "distill"])
    assert given.shutdown_timeout == 110 and "SIGUSR1" in given.signals_to_handle.split(",")


@pytest.mark.parametrize(("code", "said"), [(0, "done"), *((code, "") for code in CODES)])
def test_the_exit_codes_of_the_page_are_all_there_are(code, said):
    assert re.search(rf"^\| {code} \| {said}", PAGE, flags=re.MULTILINE)


def test_the_manifest_starts_what_loads():
    manifest = yaml.safe_load((DOCS / "pytorchjob.yaml").read_text(encoding="utf-8"))
    hosts = manifest["spec"]["pytorchReplicaSpecs"]
    assert manifest["spec"]["runPolicy"]["backoffLimit"] > 0  # errors of the configuration must end
    assert manifest["kind"] == "PyTorchJob" and set(hosts) == {"Master", "Worker"}
    for host in hosts.values():
        container = host["template"]["spec"]["containers"][0]
        started = _torchrun(container["command"])
        assert started.no_python and [started.training_script, started.training_script_args[0]] == ["distill", "run"]
        assert 30 < started.shutdown_timeout < host["template"]["spec"]["terminationGracePeriodSeconds"]
        machine = load(started.training_script_args[1], started.training_script_args[2:]).pipeline.machine
        assert machine.nodes == "auto" and machine.devices == "auto"
        assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == manifest["spec"]["nprocPerNode"]


def test_the_default_time_out_of_the_page_is_the_default():
    from configs.training import Machine

    assert f"`machine.timeout` seconds ({Machine().timeout})" in PAGE
