"""The benchmark of checkpoints: both ways are measured and written down."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main


def test_both_ways_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["benchmarks", "saving", "--small", "--threads", "1", "--json", str(path)])
    assert main() == 0
    ways = json.loads(path.read_text(encoding="utf-8"))["ways"]
    assert ways.keys() == {"waits", "beside"}
    for way in ways.values():
        assert way["megabytes"] == pytest.approx(3 * 4 * (1024 * 1024 + 1024) / 1e6, rel=0.01)
        assert way["other_step"] > 0 and 0 < way["step_with_save"] < way["whole"]
