"""Strategies that cut up weights, with tied ones (an encoder-decoder's) and with a student that is its own teacher."""

from pathlib import Path

import pytest

from tests.helpers import pairs, tiny
from tests.helpers.many import train_all
from tests.helpers.spread import assert_the_same

STRATEGIES = ("fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3")
MODELS = ("tied", "own teacher")
SPLIT = "stages.student.training.micro_batch_size=4"
STAGE = {
    "kind": "train",
    "data": ["train"],
    "objective": [{"kind": "logits", "temperature": 2}, {"kind": "hidden"}, {"kind": "task"}],
    "training": {"max_steps": 6, "batch_size": 16, "learning_rate": 1e-3, "log_every": 1, "watch": "warn"},
}


def _tied(folder: Path) -> Path:
    teacher = {"kind": "live", "model": str(pairs.vocabulary(folder))}
    student = {**pairs.STUDENT, "options": {"dropout": 0.0}}
    return pairs.run_file(folder, {"student": STAGE}, teacher=teacher, student=student)


def _own_teacher(folder: Path) -> Path:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    teacher = {"kind": "live", "model": str(tiny.model_folder(folder / "still", **still))}
    student = {"kind": "teacher", "adapter": {"kind": "lora", "rank": 3}}
    return tiny.run_file(folder, {"student": {**STAGE, "teacher": "student"}}, teacher=teacher, student=student)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    runs = {"tied": _tied(folder / "tied"), "own teacher": _own_teacher(folder / "own")}
    train_all([(runs[model], folder / model / "alone", ()) for model in MODELS], folder)
    spread = [
        (run, folder / model / name, (f"machine.strategy={name}", SPLIT))
        for model, run in runs.items()
        for name in STRATEGIES
    ]
    train_all(spread, folder, processes=2)
    return folder


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_what_one_does(trained: Path, strategy: str, model: str) -> None:
    assert_the_same(trained / model / strategy, trained / model / "alone", terms=3)
