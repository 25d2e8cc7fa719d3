"""A frozen model in (IA)³ that learns which of some answers is right: T-Few's objective, scored by ranking."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tests.helpers import choices, pairs
from tests.helpers.writers import CAUSAL, END, tokenizer, writer

LEARN = {
    "kind": "train",
    "teacher": "none",
    "data": ["told"],
    "validation": "held",
    "objective": [{"kind": "task"}, {"kind": "unlikelihood"}, {"kind": "length_normalised"}],
    "training": {"max_steps": 100, "batch_size": 8, "learning_rate": 1e-1, "weight_decay": 0.0, "keep": "best"},
}
STAGES = {
    "student": LEARN,
    "baseline": {**LEARN, "objective": [{"kind": "task"}]},
    "evaluate": {"kind": "evaluate", "data": "test", "student": "student", "baseline": "baseline"},
    "export": {"kind": "export", "student": "student", "data": "held", "formats": ["adapter"]},
}


def run_file(folder: Path, family: str, task: dict[str, Any], data: dict[str, Any]) -> Path:
    model = writer(family, ends=(END,))
    model.save_pretrained(folder / "teacher")
    tokenizer(ends=family not in CAUSAL).save_pretrained(folder / "teacher")
    teacher = {"model": str(folder / "teacher")}
    student = {"kind": "teacher", "adapter": {"kind": "ia3"}}
    return pairs.run_file(folder, STAGES, data=data, teacher=teacher, student=student, task={**pairs.TASK, **task})


def score(model: Any, source: str, answer: str) -> float:
    """Mean of log p over the tokens of an answer, by transformers alone."""
    causal = not model.config.is_encoder_decoder
    read = tokenizer(ends=not causal)(source)["input_ids"]
    said = tokenizer()(answer)["input_ids"]
    with torch.no_grad():
        if causal:
            logits = model(input_ids=torch.tensor([read + said])).logits[0, len(read) - 1 : -1]
        else:
            logits = model(input_ids=torch.tensor([read]), labels=torch.tensor([said])).logits[0]
    return float(logits.log_softmax(-1)[range(len(said)), said].mean())


def accuracy(model: Any, path: Path) -> float:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    best = [max(row["answers"], key=lambda answer, row=row: score(model, row["text"], answer)) for row in rows]
    return sum(found == row["target"] for found, row in zip(best, rows, strict=True)) / len(rows)


@pytest.mark.parametrize("family", ["t5-v1.1", "gpt2", "llama"])
def test_answers_are_learnt_ranked_and_reported(call, tmp_path: Path, family: str) -> None:
    data = {name: choices.write(tmp_path, name, 60, seed) for seed, name in enumerate(("told", "held", "test"))}
    path = run_file(tmp_path, family, {"metric": "accuracy"}, data)
    code, out, err = call("run", str(path))
    assert code == 0, out + err
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    found = {role: facts["seeds"]["0"]["accuracy"] for role, facts in results["models"].items()}
    base = (AutoModelForCausalLM if family in CAUSAL else AutoModelForSeq2SeqLM).from_pretrained(tmp_path / "teacher")
    assert found["teacher"] == pytest.approx(accuracy(base.eval(), tmp_path / "test.jsonl"))
    learnt = PeftModel.from_pretrained(base, str(tmp_path / "run/export/adapter")).eval()
    assert found["student"] == pytest.approx(accuracy(learnt, tmp_path / "test.jsonl"))
    assert found["student"] > found["teacher"]
    assert (results["metric"], results["rows"]) == ("accuracy", 60)
    report = (tmp_path / "run/report.md").read_text(encoding="utf-8")
    assert "accuracy" in report and "BLEU" not in report
    told = json.loads((tmp_path / "run/seed-0/student/stage.json").read_text(encoding="utf-8"))["results"]["validation"]
    assert told.keys() == {"accuracy", "log_prob", "perplexity", "token_accuracy"}
    assert told["accuracy"] == pytest.approx(accuracy(learnt, tmp_path / "held.jsonl"))
    shown = " ".join(out.split())
    assert "a wrong_tokens mean" in shown and "a choice_rows mean" in shown


def test_fixed_answers_need_no_column(call, tmp_path: Path) -> None:
    task = {"choices": ["w1", "w2 w2", "w3"]}
    for name in ("told", "held", "test"):
        rows = [{"text": f"w{n % 20} w{n % 7}", "label": n % 3} for n in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    names = {str(number): name for number, name in enumerate(task["choices"])}
    section = {"columns": {"target": "label"}, "label_names": names}
    data = {name: {"path": str(tmp_path / f"{name}.jsonl"), **section} for name in ("told", "held", "test")}
    path = run_file(tmp_path, "t5", task, data | {"train": data["told"], "validation": data["held"]})
    code, out, err = call("check", str(path))
    assert code == 0 and "accuracy 0." in out, out + err
    code, out, err = call("run", str(path), "stages.evaluate.baseline=null", "stages.evaluate.latency=false")
    assert code == 0, out + err
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert results["metric"] == "accuracy" and set(results["models"]) == {"teacher", "student"}


def test_the_preset_runs_on_a_small_model(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer("t5-v1.1", ends=(END,)).save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    for name, count in (("train", 60), ("validation", 30)):
        labels = ("entailment", "not_entailment")
        rows = [{"sentence1": f"w{n % 9}", "sentence2": f"w{n % 7}", "label": labels[n % 2]} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = [f"data.{name}.{key}" for name in ("train", "validation") for key in ("name=null", "split=null")]
    given += [f"data.{name}.path={name}.jsonl" for name in ("train", "validation")]
    names = "label_names={entailment: w10, not_entailment: w11}"
    given += [f"data.{name}.{names}" for name in ("train", "validation")]
    short = ["task.choices=[w10, w11]", "stages.student.training.max_steps=8", "stages.student.training.watch=warn"]
    code, out, err = call("run", "peft/tfew", "teacher.model=teacher", "output=run", *given, *short)
    assert code == 0, out + err
    assert "32 rows" in out and "8 steps of 8 rows" in out
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert (results["metric"], results["rows"], set(results["models"])) == ("accuracy", 30, {"teacher", "student"})
