"""Runs for the tests of strategies: every kind of term, no dropout, sizes that divide by no number of processes."""

import itertools
import json
from pathlib import Path

from distill.data.module import VALIDATION_ROWS
from tests.helpers import tiny
from tests.helpers.many import Job

STRATEGIES = ("ddp", "fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3")
TEACHERS = ("live", "sharded")
ACCUMULATE = {1: 8, 4: 2}
"""Micro-batch of each of two processes, by how many make a window of 16 rows."""
STUDENTS = ("full", "lora")
Case = tuple[str, str, int, str]
CASES: list[Case] = list(itertools.product(STRATEGIES, TEACHERS, ACCUMULATE, STUDENTS))
SOME = [case for case in CASES if case[1:] in (("live", 1, "full"), ("sharded", 4, "lora"))]
"""Each strategy beside each teacher, with each way to make a window and with each student."""

TRAINING = {"max_steps": 6, "batch_size": 16, "learning_rate": 0.1, "eps": 0.1, "gradient_clip": 1.25}
"""Steps as long as the gradient, cut short in some: a gradient that is twice as large makes other weights. AdamW's own
`eps` would hide that, as a limit would that cut every step."""
OBJECTIVE = [{"kind": "logits", "temperature": 2}, {"kind": "hidden"}, {"kind": "attention"}, {"kind": "task"}]
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": OBJECTIVE,
        "training": {**TRAINING, "log_every": 1, "keep": "best"},
    }
}


def overrides_of(strategy: str, folder: Path) -> tuple[str, ...]:
    """Choose a strategy; stage 3 would keep weights as small as these whole on each device."""
    chosen = f"machine.strategy={strategy}"
    if strategy != "deepspeed_3":
        return (chosen,)
    keys = folder / "every-weight.json"
    keys.write_text(json.dumps({"zero_optimization": {"stage3_param_persistence_threshold": 0}}))
    return chosen, f"machine.deepspeed.config={keys}"


def spread_run(folder: Path, kind: str, student: str) -> Path:
    """Write a run with a `live` or a `sharded` teacher and a `full` or a `lora` student."""
    teacher = {"kind": kind, "model": str(tiny.model_folder(folder / "teacher")), "dtype": "float32"}
    more = {"whole_below": 0} if kind == "sharded" else {}
    body = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 35}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    made = tiny.model_folder(folder / "student", seed=3, **body, **still)
    adapter = {"adapter": {"kind": "lora", "rank": 3}} if student == "lora" else {}
    chosen = {"kind": "folder", "model": str(made), **adapter}
    run = tiny.run_file(folder, STAGES, teacher=teacher | more, student=chosen)
    tiny.csv_file(
        folder / "validation.csv", 2 * VALIDATION_ROWS + 1, seed=1
    )  # one process has a batch more than it fills
    return run


def spread_runs(folder: Path) -> dict[tuple[str, str], Path]:
    """Write a run of each teacher and student."""
    every = itertools.product(TEACHERS, STUDENTS)
    return {(kind, student): spread_run(folder / kind / student, kind, student) for kind, student in every}


def name_of(case: Case) -> str:
    """Name a case, and the folder it is trained in."""
    return "-".join(map(str, case))


def jobs_of(runs: dict[tuple[str, str], Path], cases: list[Case], folder: Path) -> list[Job]:
    """List the trainings of cases."""
    made: list[Job] = []
    for case in cases:
        strategy, kind, accumulate, student = case
        more = f"stages.student.training.micro_batch_size={ACCUMULATE[accumulate]}"
        made.append((runs[kind, student], folder / name_of(case), (*overrides_of(strategy, folder), more)))
    return made
