"""Plan the memory of a train stage, train it, and write down both; in one process, or in those of torch's launcher.

python -m tests.helpers.footprint RUN.yaml OUTPUT [KEY=VALUE]…     writes footprint.json there
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.memory_batches import Asked
from pipelines.stage_plan import plan_stage
from tests.helpers import tiny
from tests.helpers.training import stage
from tests.helpers.writers import tokenizer, writer

BODY = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
"""25 M weights, 101 MB."""
TRAINING = {"max_steps": 3, "batch_size": 64, "padding": "fixed", "watch": "off", "checkpoint_every": 2}


def write(folder: Path, adapter: dict[str, Any] | None = None, **teacher: Any) -> Path:
    """Write a run whose models are large enough to be seen in a process's memory."""
    more = {"adapter": adapter} if adapter else {}
    student = {"kind": "folder", "model": str(tiny.model_folder(folder / "student", seed=3, **BODY)), **more}
    taught = {"model": str(tiny.model_folder(folder / "teacher", **{**BODY, "num_hidden_layers": 4})), **teacher}
    objective = [{"kind": "logits"}, {"kind": "hidden", "layers": "last"}]
    stages = {"student": {"kind": "train", "data": ["train"], "objective": objective, "training": TRAINING}}
    return tiny.run_file(folder / "run", stages, teacher=taught, student=student)


def write_wide(folder: Path) -> Path:
    """Write a run whose logits are what is large: a causal model with 20,000 pieces."""
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
    for name in ("teacher", "student"):
        writer("llama", vocab_size=20_000, num_key_value_heads=4, **sizes).save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    lines = [
        {"text": " ".join(f"w{(n + k) % 27}" for k in range(20)), "target": f"w{n % 5} w{n % 3}"} for n in range(64)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    stage = {"kind": "train", "data": ["train"], "objective": [{"kind": "task"}, {"kind": "logits"}]}
    run = {
        "about": "Wide logits.",
        "expect": "Nothing.",
        "output": str(folder / "run"),
        "task": {"kind": "generation", "max_length": 24, "max_target_length": 24},
        "teacher": {"model": str(folder / "teacher")},
        "student": {"kind": "folder", "model": str(folder / "student")},
        "data": {"train": {"path": str(folder / "rows.jsonl")}},
        "stages": {"student": {**stage, "training": {**TRAINING, "padding": "dynamic"}}},
        "machine": {"threads": 1, "loggers": ["csv"]},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(run), encoding="utf-8")
    return path


def compare(run: Path, output: Path, *overrides: str, processes: int = 1) -> dict[str, Any]:
    """Return what was planned and what was measured, in bytes, in processes of their own."""
    arguments = ["-m", "tests.helpers.footprint", str(run), str(output), *overrides]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0", "--standalone"]
    if processes > 1:
        arguments = [*launcher, *arguments, f"machine.devices={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((output / "footprint.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Plan, train, write."""
    output = Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    train = stage(sys.argv[1], "student", tuple(sys.argv[3:]))
    run = train._run
    plan = plan_stage(Asked(run, "student", train._config, run.device.world, run.device.torch_name))
    measured = train.run(output)["memory"]["measured"]
    found = {**asdict(plan.need), "planned": plan.need.total, "measured": measured}
    if os.environ.get("RANK", "0") == "0":
        (output / "footprint.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
