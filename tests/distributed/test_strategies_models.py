"""Strategies that cut up weights, with tied ones (an encoder-decoder's), with layers that share them (Compacter's) and
with a student that is its own teacher.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import pairs, tiny
from tests.helpers.many import train_all
from tests.helpers.same import is_the_same
from tests.helpers.spread import TRAINING, overrides_of

STRATEGIES = ("fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3")
MODELS = ("tied", "shared", "own teacher")
SPLIT = "stages.student.training.micro_batch_size=4"
STAGE = {
    "kind": "train",
    "data": ["train"],
    "objective": [{"kind": "logits", "temperature": 2}, {"kind": "hidden"}, {"kind": "task"}],
    "training": {**TRAINING, "log_every": 1, "watch": "warn"},
}


def _tied(folder: Path) -> Path:
    teacher = {"kind": "live", "model": str(pairs.vocabulary(folder))}
    student = {**pairs.STUDENT, "options": {"dropout": 0.0}}
    best = {**STAGE, "validation": "validation", "training": {**STAGE["training"], "keep": "best"}}
    return pairs.run_file(folder, {"student": best}, teacher=teacher, student=student)


def _adapted(folder: Path, adapter: dict[str, Any], **more: str) -> Path:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    teacher = {"kind": "live", "model": str(tiny.model_folder(folder / "still", **still))}
    student = {"kind": "teacher", "adapter": adapter}
    return tiny.run_file(folder, {"student": {**STAGE, **more}}, teacher=teacher, student=student)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    runs = {
        "tied": _tied(folder / "1"),
        "shared": _adapted(folder / "2", {"kind": "bottleneck", "size": 8, "kronecker": 4}),
        "own teacher": _adapted(folder / "3", {"kind": "lora", "rank": 3}, teacher="student"),
    }
    train_all([(runs[model], folder / model / "alone", ()) for model in MODELS], folder)
    spread = [
        (run, folder / model / strategy, (*overrides_of(strategy, folder), SPLIT))
        for model, run in runs.items()
        for strategy in STRATEGIES
    ]
    train_all(spread, folder, processes=2)
    return folder


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_what_one_does(trained: Path, strategy: str, model: str) -> None:
    is_the_same(trained / model / strategy, trained / model / "alone", terms=3)
