"""The exact words in which a wrong configuration is refused: `<where>: <path>: <what is wrong>; did you mean …`."""

from pathlib import Path

import pytest

from configs.load import load
from tests.helpers.run_yaml import problems, write

TERM = "stages.student.objective.1"
TRAINING = "stages.student.training"
SCHEDULE = "a section of kind, start, end, begin, finish"
TERMS = "attention, custom, embeddings, hidden, length_normalised, logits, relations, task, unlikelihood"
KEYS = "about, data, expect, machine, output, repeats, seed, stages, student, task, teacher"

CASES = [
    # unknown keys
    ("seeed=1", "seeed: unknown key; did you mean `seed`? Choices: " + KEYS),
    ("extends=demo", "extends: unknown key; Choices: " + KEYS),
    ("teacher.dtipe=float16", "teacher.dtipe: unknown key for kind `live`; did you mean `dtype`? "
     "Choices: dtype, kind, model, quantise, revision"),
    ("student.layrs=3", "student.layrs: unknown key for kind `sizes`; did you mean `layers`? "
     "Choices: architecture, decoder_layers, heads, hidden_size, intermediate_size, kind, layers, options, "
     "vocabulary"),
    (f"{TERM}.temprature=4", f"{TERM}.temprature: unknown key for kind `logits`; did you mean `temperature`? "
     "Choices: beta, divergence, kind, reduction, temperature, weight"),
    ("data.train.columns.txt=a", "data.train.columns.txt: unknown key; did you mean `text`? "
     "Choices: choices, id, label, pair, tags, target, text, words"),
    ("machine.gpus=2", "machine.gpus: unknown key; "
     "Choices: accelerator, deepspeed, devices, fast_fp32, fsdp, loggers, nodes, strategy, teachers, threads, timeout"),
    # kinds
    ("student.kind=size", "student.kind: unknown kind `size`; did you mean `sizes`? "
     "Choices: folder, sizes, teacher, teacher_layers"),
    (f"{TERM}.kind=logit", f"{TERM}.kind: unknown kind `logit`; did you mean `logits`? Choices: {TERMS}"),
    ("stages.evaluate.kind=eval", "stages.evaluate.kind: unknown kind `eval`; "
     "did you mean `evaluate`? Choices: augment, evaluate, export, generate, record, recorded, select, train"),
    ("data.train.kind=x", "data.train.kind: unknown kind `x`; Choices: embedded, files, held_out, stage"),
    ("student={layers: 2}", "student.kind: missing; Choices: folder, sizes, teacher, teacher_layers"),
    ("student={knd: sizes}", "student.knd: unknown key; did you mean `kind`?"),
    ("student=foo", "student: `foo` is not a section with a `kind`; Choices: folder, sizes, teacher, teacher_layers"),
    # missing keys; one that is there under a misspelt name is not missing too
    ("teacher={}", "teacher.model: missing"),
    ("teacher={modle: x}", "teacher.modle: unknown key for kind `live`; did you mean `model`? "
     "Choices: dtype, kind, model, quantise, revision"),
    ("data.train={kind: embedded, name: support-desk}", "data.train.part: missing; "
     "Choices: test, train, transfer, validation"),
    # choices
    (f"{TERM}.divergence=kll", f"{TERM}.divergence: `kll` is not one of the choices; did you mean `kl`? "
     "Choices: ce, jsd, kl, mse, rkl"),
    (f"{TRAINING}.watch=false", f"{TRAINING}.watch: false is not one of the choices; Choices: error, off, warn"),
    (f"{TERM}={{kind: relations, pairs: [qx]}}", f"{TERM}.pairs.0: `qx` is not one of the choices; "
     "Choices: kk, qk, qq, vv"),
    # ranges
    ("seed=-1", "seed: -1 is not a whole number of 0 or more"),
    ("repeats=0", "repeats: 0 is not a whole number above 0"),
    ("student.layers=2.5", "student.layers: 2.5 is not a whole number above 0"),
    ("student.layers=true", "student.layers: true is not a whole number above 0"),
    (f"{TRAINING}.learning_rate=0", f"{TRAINING}.learning_rate: 0 is not a number above 0"),
    (f"{TRAINING}.learning_rate=.nan", f"{TRAINING}.learning_rate: `.nan` is not a number above 0"),
    (f"{TRAINING}.learning_rate='1e-4'", f"{TRAINING}.learning_rate: `1e-4` is not a number above 0; "
     "leave the quotes out"),
    (f"{TRAINING}.warmup=1.5", f"{TRAINING}.warmup: 1.5 is not a number from 0 to 1"),
    (f"{TRAINING}.betas=[0.9, 2]", f"{TRAINING}.betas.1: 2 is not a number from 0 to below 1"),
    (f"{TRAINING}.betas=[0.9, 1]", f"{TRAINING}.betas.1: 1 is not a number from 0 to below 1"),
    (f"{TRAINING}.betas=[1, 1, 1]", f"{TRAINING}.betas: a list of 3 is not a list of 2"),
    ("data.validation.fraction=1", "data.validation.fraction: 1 is not a number above 0 and below 1"),
    ("stages.student.objective.0.label_smoothing=1", "stages.student.objective.0.label_smoothing: "
     "1 is not a number from 0 to below 1"),
    ("stages.student.objective=[]", "stages.student.objective: an empty list is not a list of 1 or more"),
    # unions: one line, whatever the number of members
    (f"{TERM}.weight=-1", f"{TERM}.weight: -1 is not a number of 0 or more, nor {SCHEDULE}"),
    (f"{TERM}.temperature=0", f"{TERM}.temperature: 0 is not a number above 0, nor {SCHEDULE}"),
    (f"{TERM}.weight=[1]", f"{TERM}.weight: a list of 1 is not a number of 0 or more, nor {SCHEDULE}"),
    (f"{TERM}.weight={{start: -1, end: 1}}", f"{TERM}.weight.start: -1 is not a number of 0 or more"),
    (f"{TERM}.weight={{start: 1, edn: 1}}", f"{TERM}.weight.edn: unknown key; did you mean `end`? "
     "Choices: begin, end, finish, kind, start"),
    (f"{TERM}.weight={{kind: lin, start: 1, end: 1}}", f"{TERM}.weight.kind: `lin` is not one of the choices; "
     "did you mean `linear`? Choices: cosine, linear"),
    (f"{TERM}={{kind: hidden, layers: unifrm}}", f"{TERM}.layers: `unifrm` is not one of the choices, nor a table; "
     "did you mean `uniform`? Choices: bottom, last, skip, top, uniform"),
    (f"{TERM}={{kind: hidden, layers: {{x: 1}}}}", f"{TERM}.layers.x: as a key, "
     "`x` is not a whole number of 0 or more"),
    (f"{TERM}={{kind: hidden, layers: {{1: -2}}}}", f"{TERM}.layers.1: -2 is not a whole number of 0 or more"),
    ("student={kind: teacher_layers, layers: 0}", "student.layers: 0 is not a whole number above 0, nor a list"),
    ("student={kind: teacher_layers, layers: [0, -1]}", "student.layers.1: -1 is not a whole number of 0 or more"),
    ("machine.threads=0", "machine.threads: 0 is not a whole number above 0, nor `auto`"),
    ("machine.threads=atuo", "machine.threads: `atuo` is not a whole number above 0, nor `auto`; "
     "did you mean `auto`? Choices: auto"),
    ("student.options={a: [1]}", "student.options.a: a list of 1 is not text, nor a whole number, nor a number, "
     "nor true or false"),
    # types
    ("stages.evaluate.latency=yes", "stages.evaluate.latency: `yes` is not true or false"),
    ("machine.fast_fp32=no", "machine.fast_fp32: `no` is not true or false"),
    ("about=3", "about: 3 is not text; put it in quotes"),
    ("output=5", "output: 5 is not a path"),
    ("task.labels.0=a", "task.labels: a table is not a list"),
    ("task.labels=[a, 1]", "task.labels.1: 1 is not text; put it in quotes"),
    ("data.train.label_names={0: 1}", "data.train.label_names.0: 1 is not text; put it in quotes"),
    ("stages.student.data=train", "stages.student.data: `train` is not a list; write `[train]`"),
    ("machine.loggers=csv", "machine.loggers: `csv` is not a list; write `[csv]`"),
    ("data=null", "data: nothing (null) is not a table"),
    ("stages=3", "stages: 3 is not a table"),
    ("task=null", "task: nothing (null) is not a section of kind, labels, max_length, max_target_length, "
     "source_language, target_language, choices, metric"),
    ("stages.student.objective.0=null", "stages.student.objective.0: nothing (null) is not a section with a `kind`; "
     f"Choices: {TERMS}"),
    ("task.kind=" + "x" * 61, f"task.kind: `{'x' * 60}…` is not one of the choices; "
     "Choices: classification, generation, masked_lm, regression, tagging, text"),
    # names
    ("data.Extra={path: x}", "data.Extra: not a name: lower-case letters, digits, `-` and `_`, a letter first"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)


@pytest.mark.parametrize(("override", "text"), CASES)
def test_one_slip_is_one_line(override: str, text: str) -> None:
    assert problems("run.yaml", override) == [f"override: {override}: {text}"]


def test_exclusive_keys_are_both_named_where_the_section_begins() -> None:
    what = f"run.yaml:16: {TRAINING}: exactly one of `epochs` and `max_steps` must be given"
    assert problems("run.yaml", f"{TRAINING}.max_steps=3") == [what]
    assert problems("run.yaml", f"{TRAINING}.epochs=null") == [what]


def test_all_slips_of_a_file_come_at_once_in_the_order_of_its_lines() -> None:
    text = """\
expect: A score.
sede: 1
task: {kind: clasification, max_length: 0}
teacher: {modle: x, dtype: float61}
student: {kind: sizes, layers: -1}
data:
  train: {path: train.csv, format: cvs}
  train: {path: train.csv}
stages:
  student:
    kind: train
    data: [tain]
    objective:
      - {kind: tasks}
      - {kind: logits, weight: {start: 1}}
    training: {epochs: 1, learning_rate: 1e-4x}
  evaluate: {kind: evaluate, data: tets, student: student}
"""
    write(Path(), text)
    assert problems("run.yaml") == [
        "run.yaml:1: about: missing",
        "run.yaml:2: sede: unknown key; did you mean `seed`? Choices: " + KEYS,
        "run.yaml:3: task.kind: `clasification` is not one of the choices; did you mean `classification`? "
        "Choices: classification, generation, masked_lm, regression, tagging, text",
        "run.yaml:3: task.max_length: 0 is not a whole number above 0",
        "run.yaml:4: teacher.dtype: `float61` is not one of the choices; did you mean `float16`? "
        "Choices: bfloat16, float16, float32",
        "run.yaml:4: teacher.modle: unknown key for kind `live`; did you mean `model`? "
        "Choices: dtype, kind, model, quantise, revision",
        "run.yaml:5: student.layers: -1 is not a whole number above 0",
        "run.yaml:7: data.train.format: `cvs` is not one of the choices; did you mean `csv`? "
        "Choices: auto, conll, conllu, csv, folder, hub, jsonl, lines, parquet, tsv",
        "run.yaml:8: data.train: given twice, first at run.yaml:7",
        f"run.yaml:14: stages.student.objective.0.kind: unknown kind `tasks`; did you mean `task`? Choices: {TERMS}",
        "run.yaml:15: stages.student.objective.1.weight.end: missing",
        "run.yaml:16: stages.student.training.learning_rate: `1e-4x` is not a number above 0",
        "run.yaml:17: stages.evaluate.data: there is no source `tets`; Choices: train",
    ]


def test_the_run_these_slips_are_made_in_has_none() -> None:
    assert load("run.yaml").pipeline.about == "A run."
