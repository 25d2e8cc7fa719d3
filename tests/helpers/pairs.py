"""A made-up language pair that tiny models can learn: words are replaced one by one, and turned round."""

import json
import random
from pathlib import Path
from typing import Any

from configs.data import Task
from configs.teachers import FreshTeacher
from teachers import fresh
from tests.helpers.tiny import WORDS

TASK = {"kind": "generation", "max_length": 24, "max_target_length": 24}
SIZES = {"layers": 2, "hidden_size": 32, "intermediate_size": 64, "heads": 2}
TEACHER: dict[str, Any] = {
    "kind": "fresh",
    "vocabulary": 320,
    "decoder_layers": 2,
    **SIZES,
    "options": {"dropout": 0.0},
}
STUDENT = {"kind": "sizes", **SIZES, "layers": 1, "hidden_size": 16}
TRAINING = {"epochs": 1, "tokens_per_batch": 400, "learning_rate": 3e-3, "watch": "warn"}


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return sources and targets."""
    draw = random.Random(seed)
    known = WORDS[:24]
    sources = [[draw.choice(known) for _ in range(draw.randint(2, 8))] for _ in range(count)]
    return [(" ".join(words), " ".join(f"{word}n" for word in reversed(words))) for words in sources]


def vocabulary(folder: Path, seed: int = 0, **options: Any) -> Path:
    """Write a model with random weights, for its vocabulary; `options` go to its configuration."""
    texts = [text for pair in sentences(100) for text in pair]
    asked = {**TEACHER, "options": {**TEACHER["options"], **options}}
    sizes = FreshTeacher.model_validate_json(json.dumps(asked))
    return fresh.make(sizes, Task(kind="generation"), lambda: iter(texts), seed, folder)


def write(folder: Path, name: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Write two files whose lines belong together; return the source's section."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = sentences(count, seed)
    for ending, lines in zip(("xx", "yy"), zip(*pairs, strict=True), strict=True):
        (folder / f"{name}.{ending}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"path": str(folder / f"{name}.xx"), "target_path": str(folder / f"{name}.yy"), "format": "lines"}


def run_file(folder: Path, stages: dict[str, Any], **sections: Any) -> Path:
    """Write a run over a made-up language pair; its YAML is JSON."""
    data = {
        "train": write(folder, "train", 120),
        "validation": write(folder, "validation", 20, seed=1),
        "test": write(folder, "test", 20, seed=2),
        **sections.pop("data", {}),
    }
    run = {
        "about": "A made-up language pair.",
        "expect": "Nothing.",
        "output": str(folder / "run"),
        "task": TASK,
        "teacher": TEACHER,
        "student": STUDENT,
        "data": data,
        "stages": stages,
        "machine": {"threads": 1, "loggers": ["csv"]},
        **sections,
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(run), encoding="utf-8")
    return path
