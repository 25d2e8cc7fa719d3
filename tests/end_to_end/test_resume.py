"""A run cut at any point goes on with the same command and ends with the same weights, bit for bit."""

import csv
import signal
from pathlib import Path

import pytest
import torch

from distill.callbacks.checkpoint_io import checkpoints
from distill.callbacks.checkpoints import BEST
from distill.errors import ResumeError, Stopped
from distill.exit_codes import STOPPED
from pipelines.stage import carry_out
from tests.helpers import tiny, warm
from tests.helpers.training import stage, weights

# 64 rows, 8 a step: 8 steps an epoch, a validation at the end of each, a checkpoint every second step.
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [
            {"kind": "logits", "temperature": 2},
            {"kind": "hidden"},
            {"kind": "attention"},
            {"kind": "task"},
        ],
        "training": {
            "epochs": 3,
            "batch_size": 8,
            "micro_batch_size": 4,
            "bucket_window": 3,
            "learning_rate": 1e-3,
            "checkpoint_every": 2,
            "log_every": 4,
            "workers": 2,
            "keep": "best",
        },
    }
}
CUTS = {
    "in the middle of an epoch": (5, "step"),
    "between two checkpoints": (7, "step"),
    "at the end of an epoch, before its validation is done": (8, "validation"),
    "after a validation, at the first step of an epoch": (8, "step"),
    "in the middle of the last epoch": (20, "step"),
    "in the last validation": (24, "validation"),
}


def _train(run: Path, output: Path, *cut: str) -> int:
    return warm.run("tests.helpers.training", str(run), "student", str(output), *cut).returncode


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny.run_file(tmp_path_factory.mktemp("resume"), STAGES)


@pytest.fixture(scope="module")
def whole(run: Path) -> dict[str, torch.Tensor]:
    output = run.parent / "whole"
    assert _train(run, output) == 0
    return weights(output)


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_run_ends_with_the_same_weights(run, whole, tmp_path, cut):
    step, where = CUTS[cut]
    assert _train(run, tmp_path, "--die-at", str(step), "--where", where) == 9
    assert not (tmp_path / "model").exists()
    saved = checkpoints(next((tmp_path / "checkpoints").iterdir()))
    assert saved and int(saved[-1].stem.split("-")[1]) <= step
    assert _train(run, tmp_path) == 0
    resumed = weights(tmp_path)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_one_whose_last_checkpoint_is_damaged_does_so_too(run, whole, tmp_path):
    assert _train(run, tmp_path, "--die-at", "7") == 9
    first, last = checkpoints(next((tmp_path / "checkpoints").iterdir()))
    last.write_bytes(last.read_bytes()[:-100])
    assert _train(run, tmp_path) == 0
    assert (tmp_path / f"log/from-{first.stem.removeprefix('step-')}").is_dir()
    resumed = weights(tmp_path)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_stop_before_the_stage_is_marked_done_loses_no_checkpoint(run, whole, tmp_path, monkeypatch):
    def stopped(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("pipelines.stage.digest_file", stopped)
        carry_out(stage(str(run), "student"), tmp_path)
    folder = stage(str(run), "student").folder(tmp_path)
    assert checkpoints(next((folder / "checkpoints").iterdir()))[-1].stem == "step-24"
    done = carry_out(stage(str(run), "student"), tmp_path)
    assert (folder / "log/from-24").is_dir() and not (folder / "checkpoints").exists()
    assert list(done["files"]) == ["model/model.safetensors"]
    resumed = weights(folder)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


ONCE = "stages.student.training.validate_every=0"


@pytest.mark.parametrize(("step", "how"), [(8, ()), (24, (ONCE,))], ids=["after an epoch", "after all"])
def test_a_stop_waits_for_the_validation_that_is_due(run, whole, tmp_path, step, how):
    """A resumed run takes it for done: it would never judge the weights of this step, nor find the best ones."""
    assert _train(run, tmp_path, *how, "--die-at", str(step - 1), "--where", "asked") == STOPPED
    folder = next((tmp_path / "checkpoints").iterdir())
    last = checkpoints(folder)[-1]
    assert last.stem == f"step-{step}"
    assert torch.load(last, weights_only=True)["callbacks"]["Checkpoints"]["best"] is not None
    assert (folder / BEST).is_file()
    assert _train(run, tmp_path, *how) == 0
    resumed = weights(tmp_path)
    assert how or all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_the_last_step_is_validated_wherever_validations_fall(run, tmp_path):
    uneven = "stages.student.training.epochs=1.4"  # 12 steps, and a validation every 8
    assert _train(run, tmp_path / "whole", uneven) == 0
    with (tmp_path / "whole/log/from-0/metrics.csv").open(encoding="utf-8") as file:
        scored = [int(row["step"]) for row in csv.DictReader(file) if row["validation/accuracy"]]
    assert scored == [8, 12]
    assert _train(run, tmp_path / "cut", uneven, "--die-at", "12", "--where", "validation") == 9
    saved = checkpoints(next((tmp_path / "cut/checkpoints").iterdir()))
    assert saved[-1].stem == "step-10"
    assert _train(run, tmp_path / "cut", uneven) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_dropout_is_on_while_training(run, whole, tmp_path):
    assert _train(run, tmp_path, "student.options.hidden_dropout_prob=0.0") == 0
    assert any(not torch.equal(value, whole[name]) for name, value in weights(tmp_path).items())


@pytest.fixture
def checkpoint(run, tmp_path) -> Path:
    assert _train(run, tmp_path, "--die-at", "5") == 9
    return checkpoints(next((tmp_path / "checkpoints").iterdir()))[-1]


def test_a_checkpoint_holds_student_and_projectors_and_no_teacher(run, checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    assert {name.split(".")[0] for name in state["state_dict"]} == {"student", "objective"}
    module, _ = stage(str(run), "student").assemble()
    teacher = sum(p.numel() for p in module._teacher._model.parameters())
    held = sum(value.numel() for value in state["state_dict"].values())
    assert held < teacher and held == sum(value.numel() for value in module.state_dict().values())
    assert state["DistillData"]["step"] == 4


def test_a_missing_student_tensor_is_an_error(run, checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    name = next(name for name in state["state_dict"] if "layer.1.attention" in name)
    del state["state_dict"][name]
    torch.save(state, checkpoint)
    with pytest.raises(ResumeError, match=f"differ in {name}"):
        stage(str(run), "student").run(checkpoint.parents[2])


def test_other_rows_or_another_teacher_are_refused(run, checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    for key in ("fingerprint", "teacher"):
        changed = {**state, "distill": {**state["distill"], key: "0" * 16}}
        torch.save(changed, checkpoint)
        with pytest.raises(ResumeError, match="another"):
            stage(str(run), "student").run(checkpoint.parents[2])
