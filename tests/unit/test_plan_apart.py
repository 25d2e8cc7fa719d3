"""A plan for GPUs that are not here, some of which only teach."""

import re
from pathlib import Path

import pytest

from tests.helpers import outlines

WEIGHTS = 4 * (4 * 4096**2 + 2 * 4096 * 16384) + 4096**2
"""Of the teacher: its layers and its pooler, biases, norms and embeddings aside."""
POSITIONS = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return outlines.run_file(tmp_path_factory.mktemp("apart"))


def test_devices_that_only_teach_are_planned_for(call, run):
    code, out, err = call("plan", str(run), "machine.teachers=2", "--gpus", "6", "--tflops", "1", "--utilisation", "1")
    assert code == 0, err
    printed = dict(re.findall(r"^ *(\S.*?) {2,}(\S.*?) *$", out, re.MULTILINE))
    assert printed["teacher"] == "–" and printed["rows × tokens"] == f"≤ 2 × {POSITIONS}"  # 8 rows of 4 that train
    assert float(printed["all, where it only teaches"]) == pytest.approx(4 * WEIGHTS / 1e9, rel=0.02)
    each = 2 * 2 * POSITIONS * 2 * WEIGHTS / 1e12  # two ask it about 2 rows each
    assert float(printed["computing, s a pass"]) == pytest.approx(each, rel=0.02)


def test_devices_that_cannot_only_teach_are_refused(call, run):
    code, _, err = call("plan", str(run), "machine.teachers=3", "--nodes", "2", "--gpus", "4")
    assert code == 2
    assert "machine.teachers: 3 of 2 hosts of 4 devices cannot only teach" in err and "Choices: 4" in err


@pytest.mark.parametrize("option", ["--network", "--tflops"])
def test_nothing_is_sent_or_computed_in_no_time(call, run, option):
    code, _, err = call("plan", str(run), option, "0")
    assert code == 2
    assert option in err and "ZeroDivisionError" not in err
