"""AdaLoRA's ranks: shared among what learns, and saved with the weights they belong to."""

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from configs.adapters import AdaLora
from distill import adapted_model, adapters
from distill.callbacks.checkpoints import BEST, load_best
from students.adapters.ranks import RankSchedule
from students.student import Student
from tests.helpers import families
from tests.helpers.adapted import METHODS, Trained, begin, logits

STEPS, RANK = 8, METHODS["AdaLoRA"]["rank"]


def ranks(student: Student) -> dict[str, int]:
    """How many singular values of each matrix are not zero, of those that learn."""
    named = [(name, value) for name, value in student.named_parameters() if "lora_E" in name and value.requires_grad]
    return {name: int((value != 0).sum()) for name, value in named}


def trained(kind: str, terms: str) -> Trained:
    made = begin("AdaLoRA", kind, terms)
    for _ in range(STEPS):
        made.step()
    return made


@pytest.mark.parametrize(("kind", "terms"), [("bert", "attention"), ("t5", "hidden"), ("marian", "attention")])
def test_ranks_are_shared_among_the_matrices_that_learn(kind, terms):
    student = trained(kind, terms).student
    held = ranks(student)
    assert 0 < len(held) < sum("lora_E" in name for name, _ in student.named_parameters())  # the rest is frozen
    assert sum(held.values()) == RANK * len(held)
    assert len(set(held.values())) > 1


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_ranks_are_those_asked_for_after_the_shortest_training(steps):
    made = begin("AdaLoRA", "bert", "logits")
    section = AdaLora(kind="adalora", rank=RANK, initial_rank=4, warmup=0.5, settled=0.4)
    schedule = RankSchedule(made.student.model, section)
    made.student._ranks = schedule
    schedule.begin(steps)
    for _ in range(steps):
        made.step()
    held = ranks(made.student)
    assert sum(held.values()) == RANK * len(held)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 8}, "`rank: 8` must be below `initial_rank: 8`"),
        ({"rank": 2, "warmup": 0.5, "settled": 0.5}, "`warmup: 0.5` and `settled: 0.5` leave no part of the training"),
    ],
)
def test_a_schedule_that_cannot_shrink_is_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        AdaLora(kind="adalora", **given)


@pytest.mark.parametrize("best", [1, 3, 5])
def test_the_best_weights_are_saved_with_the_ranks_they_had(tmp_path, best):
    made = begin("AdaLoRA", "bert", "logits")
    for step in range(1, STEPS + 1):
        made.step()
        if step == best:
            state = made.module.state_dict().items()
            kept = {name.removeprefix("student."): v.clone() for name, v in state if name.startswith("student.")}
            save_file(kept, tmp_path / BEST)
            said, held = logits(made.student, made.batch), ranks(made.student)
            made.student.train()
    assert ranks(made.student) != held
    load_best(tmp_path, made.module)
    adapters.save(made.student.model, tmp_path / "saved")
    again = adapters.add(families.loaded("bert").model, tmp_path / "saved", adapted_model.ACTIVE, "here")
    torch.testing.assert_close(logits(Student(again, has_head=True), made.batch), said, atol=1e-6, rtol=0)
    sizes = {name: len(value) for name, value in again.named_parameters() if "lora_E" in name}
    assert sizes == {name.removeprefix("model."): rank for name, rank in held.items()}


def test_what_was_remembered_follows_the_weights_to_another_device():
    made = begin("AdaLoRA", "bert", "logits")
    made.step()
    (schedule,) = made.schedules
    kept = schedule.state_dict()
    assert kept["exp_avg_ipt"] and all(value.device.type == "cpu" for value in kept["exp_avg_ipt"].values())
    schedule.load_state_dict(kept)
    made.student.to("meta")  # after the checkpoint is read, as a trainer does
    for value in made.student.parameters():
        value.grad = torch.zeros_like(value) if value.requires_grad else None
    schedule.share_out(1)
    for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
        assert {value.device.type for value in schedule.state_dict()[name].values()} == {"meta"}
