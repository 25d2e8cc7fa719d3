"""A training saved under one strategy and number of processes goes on under another, to the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from configs.data import Task
from distill.data.table import TokenTable
from distill.models import ModelSource
from pipelines.export import Trained, export
from pipelines.score import EncodedRows, predict_rows
from pipelines.train import MODEL
from tests.helpers import tiny
from tests.helpers.held import held_by
from tests.helpers.same import curve
from tests.helpers.spread import overrides_of, spread_run
from tests.helpers.training import cut_apart, train_apart

EVERY = "stages.student.training.checkpoint_every=2"
MOVES = {
    "from ZeRO-3 to one process and back": (("deepspeed_3", 2), ("ddp", 1), ("deepspeed_3", 2)),
    "from one process to ZeRO-3": (("ddp", 1), ("deepspeed_3", 2)),
    "from ZeRO-2 to FSDP": (("deepspeed_2", 2), ("fsdp", 2)),
    "from FSDP to ZeRO-1": (("fsdp", 2), ("deepspeed_1", 2)),
}
"""Strategies and numbers of processes, each cut before step 3 or 5 but the last."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return spread_run(tmp_path_factory.mktemp("elastic"), "live", "full")


@pytest.fixture(scope="module")
def at_once(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole(run, at_once) -> dict[str, torch.Tensor]:
    return train_apart(run, at_once, EVERY)


BETWEEN = [pytest.param(move, marks=pytest.mark.slow) for move in MOVES if "and back" not in move]


@pytest.mark.parametrize("move", [*(move for move in MOVES if "and back" in move), *BETWEEN])
def test_a_training_goes_on_under_another_strategy(run, whole, at_once, tmp_path, move):
    *cut, (last, after) = MOVES[move]
    for step, (strategy, before) in zip((3, 5)[-len(cut) :], cut, strict=True):
        cut_apart(run, tmp_path, step, EVERY, *overrides_of(strategy, tmp_path), processes=before)
    saved = sorted(path.name for path in tmp_path.rglob("*.ckpt"))
    assert saved == ["step-2.ckpt", "step-4.ckpt"]
    resumed = train_apart(run, tmp_path, EVERY, *overrides_of(last, tmp_path), processes=after)
    went_on, expected = curve(tmp_path), curve(at_once)
    assert expected.keys() == {1, 2, 3, 4, 5, 6}
    torch.testing.assert_close(
        torch.tensor([went_on[step] for step in expected]), torch.tensor([*expected.values()]), atol=1e-4, rtol=0
    )
    for name, value in whole.items():
        torch.testing.assert_close(
            resumed[name], value, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
    torch.testing.assert_close(_exported(tmp_path), _exported(at_once), atol=1e-5, rtol=0)
    exported = load_file(tmp_path / "export/transformers/model.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in resumed.items())


def _exported(folder: Path) -> torch.Tensor:
    """Export what a training ended with, and return what the export answers."""
    table = TokenTable.of([[2, *range(5, 5 + count), 3] for count in range(1, 12)], np.zeros(11), np.arange(11))
    rows = EncodedRows.of(table, 0)
    trained = Trained(ModelSource(str(folder / MODEL)), rows, Task(), tiny.LABELS, "# A card")
    export(trained, ("transformers",), folder / "export", seconds=0.01)
    return predict_rows(AutoModelForSequenceClassification.from_pretrained(folder / "export/transformers"), rows)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_3"])
def test_a_training_cut_after_its_last_step_has_its_weights(run, whole, tmp_path, strategy):
    chosen = (EVERY, *overrides_of(strategy, tmp_path))
    cut_apart(run, tmp_path, 6, *chosen, processes=2, where="end")
    assert sorted(path.name for path in tmp_path.rglob("*.ckpt")) == ["step-4.ckpt", "step-6.ckpt"]
    resumed = train_apart(run, tmp_path, *chosen, processes=2)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_3"])
def test_rank_0_alone_holds_what_was_cut_up_whole(run, tmp_path, strategy):
    first, other = held_by(run, tmp_path, *overrides_of(strategy, tmp_path), processes=2)
    learns = first["moments"] // 2
    assert first["weights"] >= learns > 0 and first["model"] >= learns
    assert other == {"weights": 0, "moments": 0, "model": 0, "asks_others": 0} and first["asks_others"] == 0
