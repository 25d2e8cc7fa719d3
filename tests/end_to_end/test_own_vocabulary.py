"""A student with a vocabulary of its own: a black box needs no tokenizer beside it, a teacher keeps its own."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.helpers import pairs
from tests.helpers.server import Server

STUDENT = {**pairs.STUDENT, "vocabulary": 310}
ALONE = {"kind": "train", "teacher": "none", "objective": [{"kind": "task"}], "training": pairs.TRAINING}
RESULT = {
    "evaluate": {"kind": "evaluate", "data": "test", "student": "student", "decoding": {"beams": 2, "max_tokens": 12}},
    "export": {"kind": "export", "student": "student", "data": "test", "formats": ["transformers", "ctranslate2"]},
}
TOLD = {"told": {"kind": "stage", "stage": "best"}}


@pytest.fixture
def black_box(tmp_path: Path, server: Server) -> Path:
    alone = [text for text, _ in pairs.sentences(120, seed=9)]
    (tmp_path / "alone.txt").write_text("\n".join(alone), encoding="utf-8")
    endpoint = {"kind": "openai", "model": "echo-7b", "url": server.url, "retries": 0}
    stages = {
        "texts": {"kind": "generate", "data": ["alone"], "endpoint": endpoint},
        "best": {"kind": "select", "generated": "texts", "filters": {"copies": None}},
        "student": {**ALONE, "data": ["told"], "validation": "validation"},
        "more": {**ALONE, "data": ["told"], "start": "student"},
        **RESULT,
    }
    source = {"path": str(tmp_path / "alone.txt"), "format": "lines", "columns": {"target": None}}
    return pairs.run_file(
        tmp_path, stages, data={"alone": source, **TOLD}, teacher={"kind": "none"}, student=STUDENT, repeats=2
    )


def test_a_black_box_needs_no_model_beside_it(call, black_box: Path) -> None:
    code, out, err = call("run", str(black_box))
    assert (code, err) == (0, ""), out + err
    run = black_box.parent / "run"
    place = run / "export/transformers"
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForSeq2SeqLM.from_pretrained(place)
    assert len(tokenizer) == model.config.vocab_size == 310
    assert model.config.forced_eos_token_id is None
    assert tokenizer.decode(tokenizer("ba be").input_ids, skip_special_tokens=True) == "ba be"
    for stage in ("seed-0/student", "seed-1/student", "seed-0/more"):
        made = run / stage / "model/tokenizer.json"
        assert made.read_bytes() == (run / "seed-0/student/model/tokenizer.json").read_bytes()
    found = json.loads((run / "evaluate/results.json").read_text(encoding="utf-8"))
    assert found["roles"] == ["student"]
    report = (run / "report.md").read_text(encoding="utf-8")
    assert "| student |" in report
    code, out, _ = call("run", str(black_box))
    assert code == 0 and out.count("done before") == 2 + 2 * 2 + 2


def test_a_teacher_with_words_of_its_own_keeps_them(call, tmp_path: Path) -> None:
    gold = {"data": ["train"], "validation": "validation"}
    stages = {
        "teacher": {**ALONE, **gold, "trains": "teacher"},
        "texts": {"kind": "generate", "data": ["train"], "decoding": {"beams": 2, "max_tokens": 12}},
        "best": {"kind": "select", "generated": "texts", "filters": None},
        "student": {**ALONE, **gold, "data": ["told"]},
        "baseline": {**ALONE, **gold},
        "evaluate": {**RESULT["evaluate"], "baseline": "baseline"},
    }
    path = pairs.run_file(tmp_path, stages, data=TOLD, student=STUDENT)
    code, out, err = call("run", str(path))
    assert (code, err) == (0, ""), out + err
    sizes = {
        stage: len(AutoTokenizer.from_pretrained(tmp_path / "run" / stage / "model"))
        for stage in ("teacher", "seed-0/student", "seed-0/baseline")
    }
    assert sizes == {"teacher": 320, "seed-0/student": 310, "seed-0/baseline": 310}
    found = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert found["roles"] == ["teacher", "student", "baseline"]
    assert "agreement" in found["models"]["student"]["seeds"]["0"]
    assert found["models"]["student"]["parameters"] < found["models"]["teacher"]["parameters"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["stages.student.teacher=task"],
            "stages.student.teacher: the run has none (`teacher.kind: none`); write `teacher: none`",
        ),
        (
            ["teacher={model: t}", "stages.student.teacher=task", "stages.student.objective=[{kind: logits}]"],
            "stages.student.teacher: the student's vocabulary is its own, and its tokens are not the teacher's; write "
            "`teacher: none`",
        ),
        (["student.vocabulary=null"], "student.vocabulary: there is no teacher to take one from; give its size"),
        (
            ["student={kind: teacher_layers, layers: 1}"],
            "student.kind: there is no teacher to take layers from; Choices: folder, sizes",
        ),
        (["stages.texts.endpoint=null"], "stages.texts.endpoint: needed where no model writes (`teacher.kind: none`)"),
        (
            ["stages.texts={kind: record, data: [train]}"],
            "stages.texts: needs a teacher model, and `teacher.kind` is `none`",
        ),
        (["task.kind=classification"], "teacher.kind: without a teacher model students learn from texts"),
        (["student.architecture=bert"], "student.architecture: bert writes no text"),
        (["student.options={max_position_embeddings: 20}"], "24 is more than the 20 positions of the student"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_at_set_up(call, black_box: Path, overrides: list[str], expected: str) -> None:
    code, _, err = call("run", str(black_box), *overrides)
    assert code == 2 and expected in " ".join(err.split())


def test_all_that_is_learnt_from_is_there_when_the_vocabulary_is_made(call, tmp_path: Path) -> None:
    stages = {
        "first": {**ALONE, "data": ["train"]},
        "texts": {"kind": "generate", "data": ["train"], "teacher": "base"},
        "best": {"kind": "select", "generated": "texts"},
        "second": {**ALONE, "data": ["told"]},
    }
    path = pairs.run_file(tmp_path, stages, data=TOLD, student=STUDENT)
    code, _, err = call("check", str(path))
    said = "stages.first: the student's vocabulary is learnt from `told` too: let `best` come before"
    assert code == 2 and said in " ".join(err.split())


def test_a_vocabulary_that_texts_at_hand_do_not_yield_is_refused_before_anything_is_trained(
    call, tmp_path: Path
) -> None:
    stages = {"student": {**ALONE, "data": ["train"]}}
    path = pairs.run_file(tmp_path, stages, student={**STUDENT, "vocabulary": 9000}, teacher={"kind": "none"})
    code, _, err = call("check", str(path))
    assert code == 2 and "student.vocabulary: size 9,000 is more than 240 texts yield; at most" in " ".join(err.split())
