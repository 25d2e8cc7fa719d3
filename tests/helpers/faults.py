"""`distill` with a fault in it: what one process does to itself at a place of its training.

The fault is data, {"rank": 1, "kind": "hang", "where": "step", "step": 5}, in the variable FAULT.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines import cli
from pipelines.place import here
from pipelines.serve import Server
from pipelines.stages import Evaluate
from teachers.recording import Recording
from teachers.wire import Message, Wire

ROOT = Path(__file__).parents[2]


class Fault(pl.Callback):
    """Do it once, at its place."""

    def __init__(self, kind: str, where: str, step: int) -> None:
        self.kind = kind
        self.where = where
        self.step = step

    def setup(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self._at("setup", trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._at("step", trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._at("validation", trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        self._at("save", trainer)

    def teardown(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self._at("end", trainer)

    def _at(self, where: str, trainer: pl.Trainer) -> None:
        if where != self.where or trainer.global_step != self.step:
            return
        self.do()

    def do(self) -> None:
        self.step = -1
        Path(os.environ["FAULT_AT"]).write_text(str(time.time()), encoding="utf-8")
        match self.kind:
            case "raise":
                raise RuntimeError("boom")
            case "late":
                time.sleep(5)
            case "hang":
                time.sleep(1000)
            case name:
                os.kill(os.getpid(), signal.Signals[name])


def script(folder: Path) -> Path:
    """Write an executable that is `distill` with the fault."""
    path = folder / "distill"
    path.write_text(f"#!{sys.executable} -P\nfrom tests.helpers.faults import main\n\nmain()\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def variables(folder: Path, **fault: Any) -> dict[str, str]:
    """Return the environment that makes a rank do it, and write down when it did."""
    at = str(folder / "fault-at")
    return {**os.environ, "FAULT": json.dumps(fault), "FAULT_AT": at, "PYTHONPATH": str(ROOT)}


def seconds_since(folder: Path) -> float:
    """Return how long ago it did."""
    return time.time() - float((folder / "fault-at").read_text(encoding="utf-8"))


def _while_it_teaches(fault: Fault) -> None:
    """Do it to a process that only teaches, when it is asked about a step."""
    original = Server._answer

    def faulty(self: Server, asked: Message, wire: Wire) -> None:
        self._ranks.step = asked.words["step"] + 1
        if asked.words["step"] == fault.step:
            fault.do()
        original(self, asked, wire)

    Server._answer = faulty  # type: ignore[method-assign]


def _while_it_records(fault: Fault) -> None:
    """Do it to a process that records, when it asks its teacher."""
    original = Recording._said

    def faulty(self: Recording, rows: NDArray[np.int64]) -> Mapping[str, Tensor]:
        fault.do()
        return original(self, rows)

    Recording._said = faulty  # type: ignore[method-assign]


def _while_it_evaluates(fault: Fault) -> None:
    """Do it to the process that scores models alone."""
    original = Evaluate.run

    def faulty(self: Evaluate, output: Path) -> dict[str, Any]:
        fault.do()
        return original(self, output)

    Evaluate.run = faulty  # type: ignore[method-assign]


def main() -> None:
    """Run the command line, with the fault if it is this rank's."""
    fault = json.loads(os.environ.get("FAULT", '{"rank": -1}'))
    place = here()
    mine = fault.pop("rank") == (place.rank if place else 0)
    if mine and fault["where"] == "answer":
        _while_it_teaches(Fault(**fault))
    elif mine and fault["where"] == "record":
        _while_it_records(Fault(**fault))
    elif mine and fault["where"] == "evaluate":
        _while_it_evaluates(Fault(**fault))
    elif mine:
        original = pl.Trainer.__init__

        def faulty(self: pl.Trainer, *args: Any, callbacks: list[pl.Callback], **kwargs: Any) -> None:
            original(self, *args, callbacks=[*callbacks, Fault(**fault)], **kwargs)

        pl.Trainer.__init__ = faulty  # type: ignore[method-assign]
    cli.main()
