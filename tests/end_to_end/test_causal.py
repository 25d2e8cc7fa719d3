"""A decoder-only teacher and student, from prompts to answers, through the same stages as a translation."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.helpers import pairs
from tests.helpers.writers import END, tokenizer, writer

LEARN = {"data": ["train"], "validation": "validation", "training": {**pairs.TRAINING, "max_steps": 6, "epochs": None}}
STAGES = {
    "texts": {"kind": "generate", "data": ["train"], "decoding": {"beams": 2, "max_tokens": 6}},
    "best": {"kind": "select", "generated": "texts", "filters": None},
    "seq": {**LEARN, "kind": "train", "teacher": "none", "data": ["told"], "objective": [{"kind": "task"}]},
    "word": {
        **LEARN,
        "kind": "train",
        "data": ["told"],
        "objective": [{"kind": "logits"}, {"kind": "hidden"}, {"kind": "attention"}],
    },
    "evaluate": {
        "kind": "evaluate",
        "data": "validation",
        "student": "seq",
        "others": ["word"],
        "decoding": {"beams": 2, "max_tokens": 6},
    },
    "export": {"kind": "export", "student": "word", "data": "validation"},
}


def lines(folder: Path, name: str, count: int) -> dict:
    rows = [{"text": f"w{n % 20} w{n % 7} w{n % 11}", "target": f"w{n % 5} w{n % 3}"} for n in range(count)]
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"path": str(folder / f"{name}.jsonl")}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prompts_become_answers(call, tmp_path: Path, family: str) -> None:
    model = writer(family, ends=(END,))
    model.save_pretrained(tmp_path / "teacher")
    tokenizer(ends=False).save_pretrained(tmp_path / "teacher")
    data = {
        "train": lines(tmp_path, "train", 60),
        "validation": lines(tmp_path, "validation", 12),
        "told": {"kind": "stage", "stage": "best"},
    }
    student = {"kind": "teacher_layers", "layers": 1}
    path = pairs.run_file(tmp_path, STAGES, data=data, teacher={"model": str(tmp_path / "teacher")}, student=student)
    code, out, err = call("run", str(path))
    assert code == 0, out + err
    texts = json.loads((tmp_path / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert texts["engine"].startswith("transformers")
    assert texts["why"] == "CTranslate2 is used for encoder-decoders here"
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert results["roles"] == ["teacher", "student", "word"]
    assert "AutoModelForCausalLM" in (tmp_path / "run/export/transformers/README.md").read_text(encoding="utf-8")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run/export/transformers")
    assert loaded.config.num_hidden_layers == 1
    assert "a causal_pairs mean" in " ".join(out.split())
