"""Runs for the tests of strategies: every kind of term, no dropout, sizes that divide by no number of processes."""

from pathlib import Path

from tests.helpers import tiny

OBJECTIVE = [{"kind": "logits", "temperature": 2}, {"kind": "hidden"}, {"kind": "attention"}, {"kind": "task"}]
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": OBJECTIVE,
        "training": {"max_steps": 6, "batch_size": 16, "learning_rate": 1e-3, "log_every": 1, "keep": "best"},
    }
}


def spread_run(folder: Path, kind: str, student: str) -> Path:
    """Write a run with a `live` or a `sharded` teacher and a `full` or a `lora` student."""
    teacher = {"kind": kind, "model": str(tiny.model_folder(folder / "teacher")), "dtype": "float32"}
    more = {"whole_below": 0} if kind == "sharded" else {}
    body = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 35}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    made = tiny.model_folder(folder / "student", seed=3, **body, **still)
    adapter = {"adapter": {"kind": "lora", "rank": 3}} if student == "lora" else {}
    chosen = {"kind": "folder", "model": str(made), **adapter}
    return tiny.run_file(folder, STAGES, teacher=teacher | more, student=chosen)
