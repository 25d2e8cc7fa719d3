"""Numbers that change over a training."""

import pytest
from pydantic import ValidationError

from configs.objective import Schedule
from distill.schedules import describe, value


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_a_number_stays(progress):
    assert value(2.5, progress) == 2.5


@pytest.mark.parametrize(
    ("kind", "progress", "expected"),
    [
        ("linear", 0.0, 4.0),
        ("linear", 0.2, 4.0),
        ("linear", 0.4, 3.0),
        ("linear", 0.6, 2.0),
        ("linear", 1.0, 2.0),
        ("cosine", 0.2, 4.0),
        ("cosine", 0.3, 3.7071067811865475),
        ("cosine", 0.4, 3.0),
        ("cosine", 0.5, 2.2928932188134525),
        ("cosine", 0.9, 2.0),
    ],
)
def test_a_schedule_moves_between_begin_and_finish(kind, progress, expected):
    schedule = Schedule(kind=kind, start=4.0, end=2.0, begin=0.2, finish=0.6)
    assert value(schedule, progress) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("begin", "finish"), [(0.5, 0.5), (0.9, 0.5)])
def test_a_schedule_without_a_span_is_refused(begin, finish):
    with pytest.raises(ValidationError, match="must lie before"):
        Schedule(start=0.0, end=1.0, begin=begin, finish=finish)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_schedule_never_leaves_its_ends(kind):
    schedule = Schedule(kind=kind, start=0.0, end=1.0, begin=0.1, finish=0.9)
    values = [value(schedule, step / 100) for step in range(101)]
    assert values == sorted(values) and values[0] == 0.0 and values[-1] == 1.0


def test_numbers_and_schedules_read_as_text():
    assert describe(0.5) == "0.5"
    assert describe(Schedule(start=1.0, end=0.0, begin=0.25)) == "1 → 0 (linear, 0.25–1 of the training)"
