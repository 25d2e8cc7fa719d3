"""The folder of a run that never was: made-up numbers in the files that runs leave behind."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.verdict import Gain, verdict

CONFIG: dict[str, Any] = {
    "task": {"kind": "classification", "max_length": 64},
    "repeats": 3,
    "teacher": {"model": "textattack/bert-base-uncased-SST-2"},
    "data": {"train": {"path": "train.tsv"}, "validation": {"path": "dev.tsv"}},
    "stages": {
        "teacher": {"kind": "train", "trains": "teacher", "data": ["train"], "objective": [{"kind": "task"}]},
        "general": {"kind": "train", "teacher": "base", "data": ["corpus"], "objective": [{"kind": "hidden"}]},
        "augment": {"kind": "augment"},
        "intermediate": {"kind": "train", "teacher": "task", "objective": [{"kind": "hidden"}, {"kind": "attention"}]},
        "prediction": {"kind": "train", "teacher": "task", "objective": [{"kind": "logits"}]},
        "labels-only": {"kind": "train", "teacher": "none", "objective": [{"kind": "task"}]},
        "evaluate": {"kind": "evaluate"},
        "export": {"kind": "export"},
    },
}


def write(folder: Path, record: Mapping[str, Any] | None = None) -> Path:
    """Write a whole run: three seeds, all stages."""
    write_record(folder, record or {})
    write_stage(folder / "teacher", 812, {"loss/task": 0.69}, validation=0.935)
    write_stage(folder / "general", 2210, {"loss/hidden": 1.3, "loss/attention": 45.0, "loss": 46.3})
    write_json(folder / "augment" / "stage.json", {"kind": "augment", "seconds": 95})
    for seed in range(3):
        base = folder / f"seed-{seed}"
        write_stage(base / "intermediate", 600, {"loss/hidden": 0.9, "loss/attention": 22.0, "loss": 22.9})
        write_stage(base / "prediction", 240, {"loss/logits": 0.8}, validation=0.905 + 0.003 * seed)
        write_stage(base / "labels-only", 180, {"loss/task": 0.7}, validation=0.875)
    write_evaluation(folder, [0.031, 0.024, 0.027])
    write_export(folder)
    return folder


def write_json(path: Path, value: object) -> None:
    """Write JSON into a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_record(folder: Path, changes: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    record: dict[str, Any] = {
        "name": "tinybert/sst2",
        "about": "BERT-base into a 4-layer TinyBERT on SST-2.",
        "expect": "Accuracy 0.91 or more; the paper has 92.6 on the test server.",
        "command": "distill run tinybert/sst2",
        "started": "2026-11-21T06:54:03+00:00",
        "config": yaml.safe_dump(CONFIG, sort_keys=False),
        "machine": "CPU, 2 threads",
        "torch": "2.13.0",
    }
    write_json(folder / "run.json", record | dict(changes))


def write_stage(folder: Path, seconds: float, columns: Mapping[str, float], validation: float | None = None) -> None:
    """Write a finished train stage; its losses fall from the given values, its accuracy rises to the given one."""
    draw = random.Random(str(folder.name))
    names = ["step", "learning_rate", *columns, *(["validation/accuracy"] if validation else [])]
    lines = [",".join(names)]
    for step in range(20, 2001, 20):
        falling = 0.12 + 0.88 * math.exp(-3 * step / 2000)
        values = [f"{start * falling * (1 + 0.05 * draw.gauss(0, 1)):.5f}" for start in columns.values()]
        lines.append(",".join([str(step), "1e-05", *values, *([""] if validation else [])]))
        if validation and step % 400 == 0:
            score = validation * (1 - 0.25 * math.exp(-5 * step / 2000))
            lines.append(",".join([str(step), "", *[""] * len(columns), f"{score:.5f}"]))
    log = folder / "log" / "from-0" / "metrics.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "stage.json", {"kind": "train", "seconds": seconds, "results": {}})


def write_evaluation(
    folder: Path, gains: Sequence[float], *, labels: Sequence[str] = ("negative", "positive"), timed: bool = True
) -> None:
    """Write the comparison of a teacher, a student that gains so much on each seed, and its baseline."""
    base = [0.884 + 0.003 * (seed % 3 - 1) for seed in range(len(gains))]
    student = [b + g for b, g in zip(base, gains, strict=True)]
    models = {
        "teacher": _model([0.9312], 109_483_778, (12, 768), 21.3 if timed else None),
        "student": _model(student, 14_350_874, (4, 312), 2.31 if timed else None),
        "baseline": _model(base, 14_350_874, (4, 312), 2.33 if timed else None),
    }
    del models["teacher"]["seeds"]["0"]["agreement"], models["teacher"]["seeds"]["0"]["agreement_kl"]
    mean, per_seed = float(np.mean(gains)), {str(seed): value for seed, value in enumerate(gains)}
    gained = Gain(per_seed, mean, float(np.std(gains)), (mean - 0.015, mean + 0.014))
    results = {
        "data": "validation",
        "rows": 872,
        "metric": "accuracy",
        "labels": list(labels),
        "models": models,
        "latency": {"device": "cpu", "threads": 2, "rows": 872, "mean_tokens": 24.8} if timed else None,
        "verdict": verdict(models, "accuracy", gained),  # type: ignore[arg-type]
    }
    write_json(folder / "evaluate" / "results.json", results)
    write_json(folder / "evaluate" / "stage.json", {"kind": "evaluate", "seconds": 41})


def write_export(folder: Path) -> None:
    """Write an export in three forms."""
    said = {"measure": "share of equal predictions", "value": 0.992, "limit": 0.97, "at_most": False}
    exact = {"measure": "largest difference of an output", "at_most": True}
    forms = {
        "transformers": (57.4, 2.3, exact | {"value": 0.0, "limit": 1e-5}),
        "onnx": (57.9, 1.7, exact | {"value": 2.4e-6, "limit": 1e-4}),
        "onnx_int8": (14.9, 0.8, said),
    }
    made = {
        form: {"path": form, "megabytes": megabytes, "parity": parity, "latency": _latency(ms)}
        for form, (megabytes, ms, parity) in forms.items()
    }
    write_json(folder / "export" / "results.json", {"rows": 256, "formats": made})
    write_json(folder / "export" / "stage.json", {"kind": "export", "seconds": 18})


def _model(scores: Sequence[float], parameters: int, shape: tuple[int, int], ms: float | None) -> dict[str, Any]:
    seeds = {str(seed): _scores(score) for seed, score in enumerate(scores)}
    model = {"path": "model", "parameters": parameters, "megabytes": 4 * parameters / 1e6, "seeds": seeds}
    model |= {"layers": shape[0], "hidden_size": shape[1]}
    return model if ms is None else model | {"latency": _latency(ms)}


def _scores(accuracy: float) -> dict[str, float]:
    return {
        "accuracy": accuracy,
        "f1": accuracy + 0.003,
        "f1_macro": accuracy - 0.001,
        "mcc": 2 * accuracy - 1,
        "ece": 0.01 + 0.2 * (1 - accuracy),
        "agreement": 0.5 + accuracy / 2,
        "agreement_kl": 0.4 * (1 - accuracy),
    }


def _latency(ms: float) -> dict[str, dict[str, float]]:
    return {"1": {"p50_ms": ms, "p95_ms": 1.3 * ms}, "32": {"p50_ms": 19 * ms, "p95_ms": 22 * ms}}
