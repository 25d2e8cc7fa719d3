"""A teacher on devices of its own: the losses and the weights are those of one process."""

from pathlib import Path

import pytest

from tests.helpers import pairs
from tests.helpers.many import Job, train_all
from tests.helpers.same import is_the_same
from tests.helpers.spread import spread_run

PARTS = "stages.student.training.micro_batch_size={}".format
WORKERS = "stages.student.training.workers=1"
THREE = {
    "two-train-in-parts": ("machine.teachers=1", PARTS(2), WORKERS),
    "two-train-by-zero": ("machine.teachers=1", "machine.strategy=deepspeed_2"),
}
MORE = (
    (
        2,
        {
            "one-trains": ("machine.teachers=1",),
            "one-trains-in-parts": ("machine.teachers=1", PARTS(4), WORKERS),
            "one-trains-by-zero": ("machine.teachers=1", "machine.strategy=deepspeed_3"),
        },
    ),
    (
        3,
        {
            "two-train": ("machine.teachers=1",),
            "two-train-by-fsdp": ("machine.teachers=1", "machine.strategy=fsdp"),
        },
    ),
    (4, {"two-train-and-two-teach": ("machine.teachers=2", PARTS(4))}),
    (4, {"three-train": ("machine.teachers=1", "machine.strategy=deepspeed_3")}),
)
"""By starts, each of so many processes: those that train stay in one group, so in all cases of a start as many do."""
WORDS = "cut-down"
"""A translation, of whose teacher the likeliest tokens are kept."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return spread_run(tmp_path_factory.mktemp("run"), "live", "full")


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    training = {"max_steps": 6, "batch_size": 12, "micro_batch_size": 3, "learning_rate": 3e-3, "log_every": 1}
    objective = [{"kind": "task"}, {"kind": "logits", "temperature": 2}, {"kind": "attention"}]
    stage = {"kind": "train", "data": ["train"], "objective": objective, "top_k": 5, "training": training}
    teacher = {"kind": "live", "model": str(pairs.vocabulary(folder / "teacher"))}
    student = {**pairs.STUDENT, "options": {"dropout": 0.0}}
    return pairs.run_file(folder, {"student": stage}, teacher=teacher, student=student)


@pytest.fixture(scope="module")
def alone(run, words, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train_all([(run, folder / "one", ()), (words, folder / WORDS, ())], folder)
    return folder


def _jobs(run: Path, cases: dict[str, tuple[str, ...]], folder: Path) -> list[Job]:
    return [(run, folder / name, overrides) for name, overrides in cases.items()]


@pytest.fixture(scope="module")
def three(run, words, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    jobs = [*_jobs(run, THREE, folder), (words, folder / WORDS, ("machine.teachers=1", PARTS(2)))]
    train_all(jobs, folder, processes=3)
    return folder


@pytest.fixture(scope="module")
def more(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("more")
    for processes, cases in MORE:
        train_all(_jobs(run, cases, folder), folder, processes=processes)
    return folder


@pytest.mark.parametrize("name", THREE)
def test_two_processes_train_and_one_teaches_both(three, alone, name):
    is_the_same(three / name, alone / "one", terms=4)


def test_of_a_translation_the_likeliest_tokens_are_sent(three, alone):
    is_the_same(three / WORDS, alone / WORDS, terms=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for _, cases in MORE for name in cases])
def test_and_so_for_other_numbers_and_strategies(more, alone, name):
    is_the_same(more / name, alone / "one", terms=4)
