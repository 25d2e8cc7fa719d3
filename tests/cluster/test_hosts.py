"""Runs on two hosts with their own addresses, started by torchrun on each; and the cable between them, pulled."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from distill.callbacks.checkpoint_io import checkpoints
from tests.cluster.hosts import Hosts, hosts, missing
from tests.helpers import tiny
from tests.helpers.training import weights

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]
DISTILL = str(Path(sys.executable).with_name("distill"))
TIMEOUT = 10
STAGES = tiny.students(max_steps=150, checkpoint_every=7)
BOTH = ("machine.nodes=2", "machine.devices=1", f"machine.timeout={TIMEOUT}")


@pytest.fixture(scope="module")
def pair() -> Iterator[Hosts]:
    with hosts() as made:
        yield made


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny.run_file(tmp_path_factory.mktemp("hosts"), STAGES)


@pytest.fixture(scope="module")
def one_host(run: Path) -> dict[str, torch.Tensor]:
    """Train by two processes of one host."""
    output = run.parent / "one"
    command = [DISTILL, "run", str(run), f"output={output}", "machine.devices=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return weights(output / "seed-0/student")


def _equal(output: Path, expected: dict[str, torch.Tensor]) -> bool:
    found = weights(output / "seed-0/student")
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_two_hosts_train_what_one_does(pair, run, one_host):
    output = run.parent / "two"
    sides = pair.torchrun(DISTILL, "run", str(run), f"output={output}", "machine.nodes=auto", port=29511)
    said = [side.communicate(timeout=200)[0] for side in sides]
    assert [side.returncode for side in sides] == [0, 0], said
    assert "2 hosts × 1 processes" in said[0] and "▸" not in said[1]
    assert _equal(output, one_host)


def test_a_pulled_cable_ends_both_sides_by_name_and_the_same_command_goes_on(pair, run, one_host):
    output = run.parent / "pulled"
    sides = pair.torchrun(DISTILL, "run", str(run), f"output={output}", *BOTH, port=29512)
    until = time.monotonic() + 120
    while not list(output.rglob("step-14.ckpt")) and time.monotonic() < until:
        time.sleep(0.05)
    pair.link("down")
    began = time.monotonic()
    try:
        said = [side.communicate(timeout=120)[0] for side in sides]
        seconds = time.monotonic() - began
    finally:
        pair.link("up")
    assert all(side.returncode == 1 for side in sides), said
    assert seconds < TIMEOUT + 30
    for text in said:
        errors = re.findall(r"^error: (.*)$", text, flags=re.MULTILINE)
        assert len(errors) == 1 and "rank 0 on host" in errors[0] and "rank 1 on host" in errors[0], text
        assert re.search(r"lost each other in step \d+: no answer for 10 s; the same command goes on from", errors[0])
    saved = [path for folder in output.glob("seed-0/student/checkpoints/*") for path in checkpoints(folder)]
    assert 14 <= int(saved[-1].stem.removeprefix("step-")) < 150
    sides = pair.torchrun(DISTILL, "run", str(run), f"output={output}", *BOTH, port=29513)
    said = [side.communicate(timeout=200)[0] for side in sides]
    assert [side.returncode for side in sides] == [0, 0], said
    assert _equal(output, one_host)


def test_other_processes_than_the_run_says_are_one_error(pair, run):
    sides = pair.torchrun(DISTILL, "run", str(run), f"output={run.parent / 'no'}", "machine.devices=1", port=29514)
    said = [side.communicate(timeout=100)[0] for side in sides]
    assert all(side.returncode != 0 for side in sides)
    assert "nodes 1 × devices 1 is not what torchrun started: 2 processes on 2 hosts" in said[0].replace("\n", " ")
