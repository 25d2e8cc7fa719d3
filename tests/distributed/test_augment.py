"""Rows are augmented by all ranks: each makes some of the parts, and the parts are those of one process."""

import json
from pathlib import Path

import pytest

from tests.helpers import tiny, warm

STAGES = {"augment": {"kind": "augment", "data": "train", "copies": 2, "candidates": 5}}
PARTS = 8
"""64 rows in parts of 8."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny.run_file(tmp_path_factory.mktemp("augment"), STAGES)


def _augmented(run: Path, output: Path, processes: int) -> list[list[str]]:
    """Return the parts that each rank made."""
    output.mkdir()
    started = processes if processes > 1 else None
    done = warm.run("tests.helpers.augmented", str(run), str(output), processes=started)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((output / f"made-{rank}.json").read_text()) for rank in range(processes)]


def test_two_processes_share_the_parts_and_write_what_one_writes(run, tmp_path):
    (alone,) = _augmented(run, tmp_path / "one", 1)
    first, second = _augmented(run, tmp_path / "two", 2)
    assert first and second and sorted(first + second) == sorted(alone) and len(alone) == PARTS
    one, two = ({part: (tmp_path / name / part).read_bytes() for part in alone} for name in ("one", "two"))
    assert one == two
    one, two = ((tmp_path / name / "results.json").read_text() for name in ("one", "two"))
    assert one == two and json.loads(one)["originals"] == 64
