"""What is wrong with a run that writes is said at set-up: one clear error, exit code 2, nothing written."""

import json
from pathlib import Path
from shutil import copytree

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from configs.data import Task
from configs.teachers import FreshTeacher
from teachers import fresh
from tests.helpers import many_languages, pairs

STAGES = {
    "teacher": {
        "kind": "train",
        "trains": "teacher",
        "data": ["train"],
        "objective": [{"kind": "task"}],
        "training": pairs.TRAINING,
    },
    "texts": {"kind": "generate", "data": ["more"]},
    "best": {"kind": "select", "generated": "texts"},
    "student": {
        "kind": "train",
        "teacher": "none",
        "data": ["told"],
        "objective": [{"kind": "task"}],
        "training": pairs.TRAINING,
    },
    "evaluate": {"kind": "evaluate", "data": "test", "student": "student"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "more.txt").write_text("ba be bi\n" + "ba " * 40 + "\nbo bu\n", encoding="utf-8")
    more = {"path": str(tmp_path / "more.txt"), "format": "lines", "columns": {"target": None}}
    teacher = {**pairs.TEACHER, "options": {"max_position_embeddings": 24}}
    data = {"more": more, "told": {"kind": "stage", "stage": "best"}}
    return pairs.run_file(tmp_path, STAGES, data=data, teacher=teacher)


def refused(call, run: Path, *overrides: str) -> str:
    code, _, err = call("run", str(run), *overrides)
    assert code == 2
    assert not (run.parent / "run" / "teacher").exists()
    return " ".join(err.split())


def test_a_source_longer_than_the_teachers_positions(call, run) -> None:
    said = refused(call, run)
    assert "stages.texts.data: a source of" in said and "is longer than the 24 positions of the teacher: 'ba ba" in said
    assert said.endswith("nothing is cut: `long_sources: leave_out` leaves such rows out")


def test_left_out_it_is_counted(call, run) -> None:
    code, _, err = call("run", str(run), "stages.texts.long_sources=leave_out", "stages.best.filters=null")
    assert (code, err) == (0, "")
    texts = (run.parent / "run/texts/stage.json").read_text(encoding="utf-8")
    assert '"left_out": 1' in texts and '"rows": 2' in texts


def test_all_left_out_there_is_nothing_to_write(call, run) -> None:
    (run.parent / "more.txt").write_text("ba " * 40 + "\n", encoding="utf-8")
    said = refused(call, run, "stages.texts.long_sources=leave_out")
    assert "stages.texts.data: no source is left: all are longer than the positions of the teacher" in said


def test_models_are_compared_on_what_all_have_positions_for(call, run, tmp_path: Path) -> None:
    for ending, long in (("xx", "ba " * 40), ("yy", "ban " * 40)):
        lines = (tmp_path / f"test.{ending}").read_text(encoding="utf-8")
        (tmp_path / f"test.{ending}").write_text(f"{long.strip()}\n{lines}", encoding="utf-8")
    export = "stages.export={kind: export, student: student, data: test}"
    short = ["stages.texts.data=[train]", "stages.best.filters=null", "stages.evaluate.decoding={beams: 2}"]
    code, out, err = call("run", str(run), *short, export)
    assert (code, err) == (0, "")
    assert "1 left out, longer than a model’s positions" in " ".join(out.split())
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert (results["rows"], results["left_out"]) == (20, 1)
    assert json.loads((tmp_path / "run/export/results.json").read_text(encoding="utf-8"))["rows"] == 20


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "task.max_target_length=25",
            "task.max_target_length: 25 is more than the 24 positions of",
        ),
        (
            "stages.texts={kind: generate, data: [train], decoding: {language: de_DE}}",
            "decoding.language: `de_DE` is no special token of the teacher's; Choices: </s>, <pad>, <unk>",
        ),
        (
            "stages.best.generated=teacher",
            "stages.best.generated: stage `teacher` is of kind `train` and writes no texts; Choices: texts",
        ),
        (
            "task={kind: regression}",
            "stages.texts.kind: `generate` writes texts, and `task.kind` is `regression`",
        ),
        (
            "stages.student.training.freeze=[encoder]",
            "stages.student.training.freeze: keeps weights as they are, and those of the student are random when this "
            "stage starts",
        ),
        (
            "stages.best.hypotheses=2",
            "stages.best.hypotheses: 2 of 1 that stage `texts` writes",
        ),
        (
            "stages.best={kind: select, generated: texts, by: chrf, hypotheses: 2}",
            "several `hypotheses` are weighted by the teacher's scores; write `by: score`, not `chrf`",
        ),
        (
            "stages.best.temperature=2",
            "`temperature` weighs several `hypotheses` against each other, and 1 is kept; leave it out",
        ),
        (
            "stages={texts: {kind: generate, data: [train], endpoint: {kind: openai, model: m}}, "
            "best: {kind: select, generated: texts, hypotheses: 2}}",
            "several are weighted by scores, and the endpoint of stage `texts` tells none; keep 1",
        ),
        (
            "stages.student.data=[more]",
            "data.more: row 1 has no target, and stages.student.data needs one",
        ),
        (
            "data.test.columns={target: null}",
            "data.test: row 1 has no target, and stages.evaluate.data needs one",
        ),
        (
            "teacher.decoder_layers=0",
            "teacher.decoder_layers",
        ),
        (
            "teacher={kind: fresh, architecture: bert}",
            "teacher.architecture: bert writes no text, and the run's task is a generation",
        ),
        (
            "teacher.vocabulary=9000",
            "teacher: size 9,000 is more than",
        ),
        (
            "stages.evaluate={kind: export, data: test, student: student, formats: [onnx]}",
            "stages.evaluate.formats.0: `onnx` is not for a generation",
        ),
        (
            "stages.student.objective=[{kind: task}, {kind: hidden, side: decoder}]",
            "stages.student.objective.1.kind: `hidden` needs a teacher, and this stage has none",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(call, run, override: str, expected: str) -> None:
    assert expected in refused(call, run, "stages.texts.long_sources=leave_out", override)


def test_a_part_to_freeze_that_is_not_there(call, run) -> None:
    copy = "student={kind: teacher_layers, layers: 1}"
    said = refused(
        call, run, "stages.texts.long_sources=leave_out", copy, "stages.student.training.freeze=[encoder, heads]"
    )
    assert "stages.student.training.freeze: the model has no `heads`; did you mean `lm_head`? There are: " in said


def test_a_reverse_model_marks_the_worst(call, run, tmp_path: Path) -> None:
    left = ["stages.texts.long_sources=leave_out", "stages.texts.data=[train]"]
    both = (
        "filters: {worst: 0.25, length_ratio: null, repetition: null, duplicates: null, copies: null, unended: false}"
    )
    alone = "stages.best={kind: select, generated: texts, filters: {worst: 0.25}}"
    assert "`reverse` and `filters.worst` go together" in refused(call, run, *left, alone)
    missing = f"stages.best={{kind: select, generated: texts, reverse: {tmp_path}/none, {both}}}"
    assert "stages.best.reverse: folder" in refused(call, run, *left, missing)
    many = tmp_path / "many"
    source, target = many_languages.model_folder(many, "mbart")
    best = f"stages.best={{kind: select, generated: texts, reverse: {many}, {both}}}"
    assert "task.source_language: stages.best.reverse, " in refused(call, run, *left, best)
    named = [f"task.source_language={target}", f"task.target_language={source}"]
    slip = refused(call, run, *left, best, f"{named[0]}n", named[1])
    assert f"task.source_language: `{target}n` is no language" in slip
    assert call("check", str(run), *left, best, *named)[0] == 0
    assert "marks no languages; leave it and `target_language` out" in refused(call, run, *left, *named)
    reverse = pairs.vocabulary(tmp_path / "reverse", seed=1)
    code, _, err = call(
        "run", str(run), *left, f"stages.best={{kind: select, generated: texts, reverse: {reverse}, {both}}}"
    )
    assert code == 0, err
    told = json.loads((run.parent / "run/best/stage.json").read_text(encoding="utf-8"))["results"]
    assert 0 < told["left_out"]["worst"] <= told["texts"] // 4


BY_REVERSE = (
    "stages.best={{kind: select, generated: texts, reverse: {0}, filters: {{worst: 0.25, length_ratio: null, "
    "repetition: null, duplicates: null, copies: null, unended: false}}}}"
)
SHORT = ["stages.texts.long_sources=leave_out", "stages.texts.data=[train]"]


def test_texts_longer_than_the_reverse_models_positions_are_not_judged(call, run, tmp_path: Path) -> None:
    options = {"dropout": 0.0, "max_position_embeddings": 12}
    sizes = FreshTeacher.model_validate({**pairs.TEACHER, "options": options})
    texts = [text for pair in pairs.sentences(100) for text in pair]
    reverse = fresh.make(sizes, Task(kind="generation"), lambda: iter(texts), 1, tmp_path / "reverse")
    short = "stages.texts.decoding={beams: 1, max_tokens: 8}"
    code, out, err = call("run", str(run), *SHORT, short, BY_REVERSE.format(reverse))
    assert code == 0, out + err
    rows = pq.read_table(run.parent / "run/best/choices/choices.parquet").to_pylist()
    words = AutoTokenizer.from_pretrained(reverse)
    for row in rows:
        long = max(len(words(row[name])["input_ids"]) for name in ("source", "text")) > 12
        assert row["unscored"] == ("longer than its positions" if long else None)
        assert (row["reverse"] is None) == long and not (long and "worst" in row["reasons"])
    count = sum(row["unscored"] is not None for row in rows)
    assert 0 < count < len(rows)
    told = json.loads((run.parent / "run/best/stage.json").read_text(encoding="utf-8"))["results"]
    assert told["unscored"] == count
    report = next((run.parent / "run").rglob("report.md")).read_text(encoding="utf-8")
    assert f"{count} texts not judged by the reverse model, longer than its positions" in report


def test_a_reverse_model_that_is_no_encoder_decoder(call, run, tmp_path: Path) -> None:
    folder = Path(copytree(pairs.vocabulary(tmp_path / "words"), tmp_path / "decoder"))
    GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    said = refused(call, run, *SHORT, BY_REVERSE.format(folder))
    assert f"stages.best.reverse: {folder} is a GPT2LMHeadModel; the model of the reverse direction reads" in said


def test_files_of_unequal_length(call, run) -> None:
    with (run.parent / "train.yy").open("a", encoding="utf-8") as more:
        more.write("ban\n")
    assert "train.xx has 120 lines" in refused(call, run)


def test_texts_of_a_teacher_that_is_not_trained(call, run) -> None:
    code, _, err = call("generate", str(run), "stages.texts.long_sources=leave_out")
    assert code == 2 and "stages.teacher: the teacher is not trained yet; `distill train` does it" in err


def test_a_teacher_without_vocabulary(call, run, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "marian"}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    assert f"teacher.model: folder {folder} lacks tokenizer.json" in refused(call, run, f"teacher={{model: {folder}}}")
