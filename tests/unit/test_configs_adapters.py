"""What a stage must be like that learns from adapters."""

import pytest

from configs.load import load
from tests.helpers.run_yaml import problems, write

RUN = """\
about: A run.
expect: A score.
task: {max_length: 16}
teacher: {model: teacher}
student: {kind: teacher, adapter: {kind: lora}}
data: {banking: {path: banking.csv}, travel: {path: travel.csv}}
stages:
  record: {kind: record, teacher: base, data: [banking, travel]}
  student:
    kind: train
    teacher: student
    adapters: {banking: one, travel: two}
    data: [banking, travel]
    objective: [{kind: logits}]
    training: {epochs: 1}
"""


@pytest.mark.parametrize("teacher", ["student", "base"])
def test_each_source_has_its_adapter(tmp_path, teacher):
    loaded = load(write(tmp_path, RUN), [f"stages.student.teacher={teacher}", "stages.student.adapters.travel=one"])
    assert loaded.pipeline.stages["student"].adapters == {"banking": "one", "travel": "one"}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.student.data=[banking]", "stages.student.adapters.travel: this stage learns from no source `travel`"),
        ("stages.student.adapters={banking: one}", "stages.student.adapters: no adapter teaches the rows of travel"),
        ("stages.student.teacher=task", "stages.student.adapters: these teach in a frozen model that `teacher` names"),
        ("stages.student.teacher=none", "stages.student.adapters: these teach in a frozen model that `teacher` names"),
    ],
)
def test_rows_without_an_adapter_and_adapters_without_rows_or_model_are_refused(tmp_path, override, told):
    assert any(told in found for found in problems(write(tmp_path, RUN), override))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("teacher={kind: sharded, model: teacher}", "go into no teacher that is sharded"),
        ("teacher.quantise=int8", "go into no teacher that is quantised"),
        ("stages.student.cache=record", "stage `record` recorded what another teacher said; leave `cache` or"),
    ],
)
def test_a_teacher_that_holds_no_adapters_is_refused(tmp_path, override, told):
    found = problems(write(tmp_path, RUN), "stages.student.teacher=base", override)
    assert any(f"stages.student.adapters: {told}" in one for one in found)
