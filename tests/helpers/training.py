"""Run a train stage of a tiny run in a process of its own, cut it where asked, and print what it ended with.

python -m tests.helpers.training RUN.yaml STAGE [--die-after STEP] [--die-in-validation]
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from safetensors.torch import load_file

from configs.load import load
from distill.adapter_folder import WEIGHTS
from distill.errors import Stopped
from distill.exit_codes import STOPPED
from pipelines import train
from pipelines.machine import prepare
from pipelines.run import Run
from pipelines.train import Train
from tests.helpers import warm


class Cut(pl.Callback):
    """Die without a word, as a machine does that loses power, or be asked to stop."""

    def __init__(self, step: int, where: str) -> None:
        self.step = step
        self.where = where

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step != self.step:
            return
        if self.where == "step":
            os._exit(9)
        if self.where == "asked":
            self.step = -1  # a second signal would act at once
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.where == "end":
            os._exit(9)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.where == "validation" and trainer.global_step == self.step:
            os._exit(9)


def stage(path: str, name: str, overrides: tuple[str, ...] = ()) -> Train:
    """Return a train stage of a run file."""
    loaded = load(path, list(overrides))
    run = Run(loaded.pipeline, prepare(loaded.pipeline.machine), Console(stderr=True, quiet=True))
    config = loaded.pipeline.stages[name]
    return Train(run, name, config, 0)


def weights(output: Path) -> dict[str, Any]:
    """Return the tensors a stage ended with."""
    whole = output / train.MODEL / "model.safetensors"
    return dict(load_file(whole if whole.is_file() else output / train.MODEL / WEIGHTS))


def train_apart(run: Path, output: Path, *overrides: str, processes: int = 1) -> dict[str, Any]:
    """Train the stage `student` of a run file in processes of its own; return the tensors it ended with."""
    done = _train(run, output, overrides, processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return weights(output)


def cut_apart(run: Path, output: Path, step: int, *overrides: str, processes: int = 1, where: str = "step") -> None:
    """Train the same way, and die before a step, or after the last (`where`: end)."""
    done = _train(run, output, overrides, processes, "--die-at", str(step), "--where", where)
    assert done.returncode == (9 if processes == 1 else 1), done.stderr[-3000:]
    assert not (output / train.MODEL).exists()


def _train(
    run: Path, output: Path, overrides: tuple[str, ...], processes: int, *options: str
) -> "subprocess.CompletedProcess[str]":
    more = [f"machine.devices={processes}"] if processes > 1 else []
    given = [str(run), "student", str(output), *overrides, *more, *options]
    return warm.run("tests.helpers.training", *given, processes=processes if processes > 1 else None)


def main() -> None:
    """Train; with a cut, die at it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("stage")
    parser.add_argument("output")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--where", default="step")
    given = parser.parse_args()
    if given.die_at is not None:
        original = pl.Trainer.__init__

        def with_cut(self: pl.Trainer, *args: Any, callbacks: list[pl.Callback], **kwargs: Any) -> None:
            original(self, *args, callbacks=[*callbacks, Cut(given.die_at, given.where)], **kwargs)

        pl.Trainer.__init__ = with_cut  # type: ignore[method-assign]
    output = Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    try:
        stage(given.run, given.stage, tuple(given.overrides)).run(output)
    except Stopped:
        sys.exit(STOPPED)
    sys.exit(0)


if __name__ == "__main__":
    main()
