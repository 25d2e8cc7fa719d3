"""A training whose checkpoints are written beside it: cut at any moment it ends with the same weights, bit for bit."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from distill.callbacks.checkpoint_io import checkpoints
from distill.exit_codes import STOPPED
from tests.helpers import tiny, warm
from tests.helpers.spread import overrides_of
from tests.helpers.training import weights

STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "logits", "temperature": 2}, {"kind": "hidden"}, {"kind": "task"}],
        "training": {"max_steps": 24, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 2, "keep": "best"},
    }
}
ASYNC = "stages.student.training.checkpoint_async=true"


def _train(
    run: Path, output: Path, *options: str, processes: int | None = None, **fault: object
) -> "subprocess.CompletedProcess[str]":
    given, saving = [str(run), "student", str(output), *options], {"SAVING": json.dumps(fault)}
    return warm.run("tests.helpers.saving", *given, processes=processes, environment=saving)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny.run_file(tmp_path_factory.mktemp("async"), STAGES)


@pytest.fixture(scope="module")
def whole(run: Path) -> dict[str, torch.Tensor]:
    """Trained with checkpoints written in its own time."""
    done = _train(run, run.parent / "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    return weights(run.parent / "whole")


def _goes_on_to(
    whole: dict[str, torch.Tensor], run: Path, output: Path, *options: str, processes: int | None = None
) -> None:
    done = _train(run, output, ASYNC, *options, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    found = weights(output)
    assert found.keys() == whole.keys() and all(torch.equal(found[name], value) for name, value in whole.items())


def _saved(output: Path) -> list[str]:
    return [path.name for path in checkpoints(next((output / "checkpoints").iterdir()))]


def test_it_ends_with_the_weights_of_one_that_waits(run, whole, tmp_path):
    _goes_on_to(whole, run, tmp_path)


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (8, 17))])
def test_cut_between_and_in_steps(run, whole, tmp_path, step):
    assert _train(run, tmp_path, ASYNC, "--die-at", str(step)).returncode == 9
    _goes_on_to(whole, run, tmp_path)


def test_killed_in_the_middle_of_a_write(run, whole, tmp_path):
    killed = _train(run, tmp_path, ASYNC, step=8, kind="kill")
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert _saved(tmp_path) == ["step-4.ckpt", "step-6.ckpt"]
    assert next(tmp_path.rglob(".step-8.ckpt.partial")).stat().st_size > 0
    _goes_on_to(whole, run, tmp_path)


@pytest.mark.parametrize(
    "step", [8, pytest.param(24, marks=pytest.mark.slow)], ids=["in the middle", "at the last step"]
)
def test_a_full_disk_ends_it_with_that_error(run, whole, tmp_path, step):
    errors = {}
    for name, how in (("waits", ()), ("beside", (ASYNC,))):
        done = _train(run, tmp_path / name, *how, step=step, kind="full")
        assert done.returncode == 1
        errors[name] = done.stderr.strip().splitlines()[-1].replace(str(tmp_path / name), "")
        assert _saved(tmp_path / name) == [f"step-{step - 4}.ckpt", f"step-{step - 2}.ckpt"]
        assert not (tmp_path / name / "model").exists()
    assert errors["beside"] == errors["waits"] and "No space left on device" in errors["waits"]
    _goes_on_to(whole, run, tmp_path / "beside")


def test_a_signal_waits_for_the_write(run, whole, tmp_path):
    stopped = _train(run, tmp_path, ASYNC, step=8, kind="signal")
    assert stopped.returncode == STOPPED, stopped.stderr[-3000:]
    assert _saved(tmp_path)[-1] in ("step-8.ckpt", "step-9.ckpt", "step-10.ckpt")
    assert not list(tmp_path.rglob("*.partial"))
    _goes_on_to(whole, run, tmp_path)


@pytest.mark.slow
def test_so_do_two_processes_that_hold_a_part_of_every_weight(run, tmp_path):
    """Rank 0 writes what both put together."""
    ways, two = ("machine.devices=2", *overrides_of("deepspeed_3", tmp_path)), {"processes": 2}
    assert _train(run, tmp_path / "waits", *ways, **two).returncode == 0
    expected = weights(tmp_path / "waits")
    _goes_on_to(expected, run, tmp_path / "beside", *ways, **two)
    stopped = _train(run, tmp_path / "stopped", ASYNC, *ways, **two, step=8, kind="signal")
    assert stopped.returncode == 1 and not stopped.stderr, stopped.stderr[-3000:]
    last = Path(_saved(tmp_path / "stopped")[-1]).stem
    assert last in ("step-8", "step-9", "step-10")
    _goes_on_to(expected, run, tmp_path / "stopped", *ways, **two)
    assert (tmp_path / "stopped/log" / last.replace("step", "from")).is_dir()
    killed = _train(run, tmp_path / "killed", ASYNC, *ways, **two, step=8, kind="kill")
    assert killed.returncode == 1 and _saved(tmp_path / "killed") == ["step-4.ckpt", "step-6.ckpt"]
    _goes_on_to(expected, run, tmp_path / "killed", *ways, **two)
    assert (tmp_path / "killed/log/from-6").is_dir()
