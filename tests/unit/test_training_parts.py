"""The small parts of a training: learning rate, files, dead losses, signals."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from configs.training import Training
from distill.callbacks.checkpoint_io import AtomicIO, checkpoints
from distill.callbacks.watch import Share, Watch
from distill.errors import DeadLoss
from distill.files import digest, write_atomically
from distill.learning_rate import factor_at
from tests.helpers import tiny
from tests.helpers.training import stage, weights


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_rises_and_falls(schedule):
    training = Training(epochs=1, schedule=schedule, warmup=0.1)
    factors = [factor_at(step, training, 100) for step in range(101)]
    assert 0 < factors[0] < factors[5] < factors[9] <= 1 and factors[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert factors[100] == pytest.approx(1.0 if schedule == "constant" else 0.0)


def test_without_warm_up_the_first_step_is_a_full_one():
    assert factor_at(0, Training(epochs=1, warmup=0.0), 10) == 1.0


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")

    def fail(partial: Path) -> None:
        partial.write_text("half", encoding="utf-8")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text(encoding="utf-8") == "old"


def test_digests_keep_parts_apart():
    assert digest("ab", "c") != digest("a", "bc") and digest("a", "b") == digest(b"a", "b")


def test_half_written_checkpoints_are_none(tmp_path):
    AtomicIO().save_checkpoint({"x": torch.ones(2)}, tmp_path / "step-10.ckpt")
    AtomicIO().save_checkpoint({"x": torch.ones(2)}, tmp_path / "step-9.ckpt")
    (tmp_path / ".step-11.ckpt.partial").write_bytes(b"half")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-9.ckpt", "step-10.ckpt"]


DEAD = {
    "exactly 0": (Share("attention", 0.0, 0.0, 0.0), "is exactly 0 and gives no gradient"),
    "not a number": (Share("logits", float("nan"), 1.0, 0.5), "is nan at the first step"),
    "without gradient": (Share("hidden", 1.0, 0.0, 0.0), "gives the student no gradient"),
    "with a gradient that is no number": (Share("hidden", 1.0, float("nan"), 0.0), "gives the student no gradient"),
}


@pytest.mark.parametrize("case", DEAD)
def test_dead_terms_stop_the_run(case):
    share, message = DEAD[case]
    with pytest.raises(DeadLoss, match=message):
        Watch("error", lambda shares: None)._check([share])


def test_a_live_term_does_not():
    Watch("error", lambda shares: None)._check([Share("logits", 0.3, 0.1, 1.0)])


def _stages(objective=({"kind": "logits"},), **training):
    given = {"epochs": 1, "batch_size": 8, "checkpoint_every": 100, **training}
    return {"student": {"kind": "train", "data": ["train"], "objective": list(objective), "training": given}}


def test_a_term_that_is_exactly_zero_stops_a_real_run(tmp_path):
    student = {"kind": "teacher_layers", "layers": 4}  # its embeddings are the teacher's
    train = stage(str(tiny.run_file(tmp_path, _stages(objective=[{"kind": "embeddings"}]), student=student)), "student")
    module, data = train.assemble()
    for part in module.student.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    train.assemble = lambda: (module, data)
    with pytest.raises(DeadLoss, match="embeddings: is exactly 0"):
        train.run(tmp_path / "out")


def _start_as_the_teacher(folder, term, training=None, **more):
    """Return a stage whose student is its teacher with an adapter that changes nothing yet, without dropout."""
    student = {"kind": "teacher", "adapter": {"kind": "lora", "rank": 2}}
    stages = _stages(
        objective=[{"kind": term, **more}, {"kind": "task"}], **{"micro_batch_size": 2, **(training or {})}
    )
    train = stage(str(tiny.run_file(folder, stages, student=student)), "student")
    module, data = train.assemble()
    for part in module.student.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    train.assemble = lambda: (module, data)
    return train


def test_rows_with_labels_may_be_few(tmp_path):
    stages = _stages(objective=[{"kind": "logits"}, {"kind": "task"}], micro_batch_size=1)
    stages["student"] |= {"data": ["few", "unlabelled"]}
    unlabelled = tiny.csv_file(tmp_path / "unlabelled.csv", 60, seed=2, labelled=False)
    sources = {
        "few": {"path": str(tiny.csv_file(tmp_path / "few.csv", 4))},
        "unlabelled": {"path": str(unlabelled), "columns": {"label": None}},
    }
    stage(str(tiny.run_file(tmp_path, stages, data=sources)), "student").run(tmp_path / "out")
    assert weights(tmp_path / "out")


@pytest.mark.parametrize("other", [(), ({"kind": "task"},)], ids=["alone", "beside another"])
def test_a_weight_may_rise_from_zero(tmp_path, other):
    late = {"kind": "logits", "weight": {"start": 0, "end": 1, "begin": 0.6}}
    stage(str(tiny.run_file(tmp_path, _stages([*other, late]))), "student").run(tmp_path / "out")
    assert weights(tmp_path / "out")


def test_a_term_that_is_zero_once_its_weight_has_risen_stops_a_real_run(tmp_path):
    rising = {"start": 0, "end": 1, "begin": 0.4, "finish": 0.8}
    with pytest.raises(DeadLoss, match="embeddings: is exactly 0"):
        _start_as_the_teacher(tmp_path, "embeddings", weight=rising).run(tmp_path / "out")


@pytest.fixture
def cut(tmp_path):
    """Train on a term that is 0, of weight 0 up to the fourth of eight steps; stop, and return how to go on."""
    rising = {"start": 0, "end": 1, "begin": 0.4, "finish": 0.8}

    def started():
        return _start_as_the_teacher(tmp_path, "embeddings", {"checkpoint_every": 1}, weight=rising)

    def train(steps):
        first = started()
        module, _ = first.assemble()
        step = module.training_step

        def stopped(batch, batch_idx):
            if module.trainer.global_step == steps:
                raise InterruptedError
            return step(batch, batch_idx)

        module.training_step = stopped
        with pytest.raises(InterruptedError):
            first.run(tmp_path / "out")
        (saved,) = (tmp_path / "out/checkpoints").rglob(f"step-{steps}.ckpt")
        return started(), saved

    return train


@pytest.mark.parametrize(("steps", "seen"), [(2, 0), (6, 2)])
def test_what_is_still_to_be_judged_is_judged_after_a_resume(tmp_path, cut, steps, seen):
    again, saved = cut(steps)
    kept = torch.load(saved, weights_only=True)["callbacks"]["Watch"]
    assert kept["still"] == ["embeddings"] and kept["windows"]["embeddings"] == [0.0] * seen
    with pytest.raises(DeadLoss, match="embeddings: is exactly 0 in the first 3 windows"):
        again.run(tmp_path / "out")


def test_a_checkpoint_without_what_is_still_to_be_judged_is_gone_on_from(tmp_path, cut):
    again, saved = cut(2)
    state = torch.load(saved, weights_only=True)
    del state["callbacks"]["Watch"]
    torch.save(state, saved)
    again.run(tmp_path / "out")
    assert weights(tmp_path / "out")


def test_a_student_that_starts_as_its_teacher_may_learn(tmp_path):
    _start_as_the_teacher(tmp_path, "hidden").run(tmp_path / "out")
    assert weights(tmp_path / "out")


def test_a_gradient_is_looked_at_once_though_windows_end_in_spare_rows(tmp_path):
    spare = {"epochs": None, "max_steps": 3, "tokens_per_batch": 60, "micro_batch_size": 1}
    train = _start_as_the_teacher(tmp_path, "hidden", spare)
    module, data = train.assemble()
    assert not any(len(data.plan.parts(step)[-1]) for step in range(3))
    train.run(tmp_path / "out")
    (watch,) = (callback for callback in module.trainer.callbacks if isinstance(callback, Watch))
    assert watch._still == {"hidden"} and "hidden" not in watch._windows and not watch._without


def test_a_term_that_stays_zero_while_the_student_moves_stops_a_real_run(tmp_path):
    with pytest.raises(DeadLoss, match="embeddings: is exactly 0"):
        _start_as_the_teacher(tmp_path, "embeddings").run(tmp_path / "out")


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_no_number_any_more_stops_a_real_run(tmp_path, log_every):
    stages = _stages(learning_rate=1e38, warmup=0.0, log_every=log_every)
    with pytest.raises(DeadLoss, match=r"objective\.logits: is nan"):
        stage(str(tiny.run_file(tmp_path, stages)), "student").run(tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_a_loss_that_is_no_number_after_the_first_steps_stops_a_real_run(tmp_path):
    train = stage(str(tiny.run_file(tmp_path, _stages(epochs=2, log_every=5))), "student")
    module, data = train.assemble()
    step = module.training_step

    def late(batch, batch_idx):
        if batch_idx == 7:
            next(module.student.parameters()).data.fill_(float("nan"))
        return step(batch, batch_idx)

    module.training_step = late
    train.assemble = lambda: (module, data)
    with pytest.raises(DeadLoss, match=r"objective\.logits: is nan at step 10"):
        train.run(tmp_path / "out")


def test_a_student_that_came_in_eval_mode_trains_with_dropout(tmp_path):
    train = stage(str(tiny.run_file(tmp_path, _stages())), "student")
    module, data = train.assemble()
    module.student.eval()
    modes, step = [], module.training_step

    def watched(batch, batch_idx):
        modes.append((module.student.training, module._teacher._model.training))
        return step(batch, batch_idx)

    module.training_step = watched
    train.assemble = lambda: (module, data)
    train.run(tmp_path / "out")
    assert set(modes) == {(True, False)}


def test_the_same_run_twice_gives_the_same_weights(tmp_path):
    stages = _stages(objective=[{"kind": "task"}])
    stages["student"] |= {"trains": "teacher"}  # its head is new, so its first weights are drawn
    run = tiny.run_file(tmp_path, stages, teacher={"model": str(tiny.model_folder(tmp_path / "body", head=False))})
    for name in ("a", "b"):
        torch.rand(3)  # whatever happened before must not matter
        stage(str(run), "student").run(tmp_path / name)
    first, again = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(again[name], value) for name, value in first.items())


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_step_and_says_so(tmp_path, sent, code):
    run = tiny.run_file(tmp_path, _stages(epochs=2000))
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "run", str(run)]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "run/seed-0/student/log"
    deadline = time.monotonic() + 120
    while not list(folder.glob("from-0/metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(job.pid, sent)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == code, errors
    assert "the same command goes on" in errors and "Traceback" not in errors
    assert len(list((tmp_path / "run/seed-0/student/checkpoints").rglob("step-*.ckpt"))) == 1
