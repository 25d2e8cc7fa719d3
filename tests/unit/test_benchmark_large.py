"""The benchmark of large teachers: all variants answer, and are written down."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main

pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")


@pytest.mark.slow
def test_all_variants_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "found.json"
    given = ["benchmarks", "large", "--small", "--rounds", "1", "--threads", "1", "--json", str(path)]
    monkeypatch.setattr("sys.argv", given)
    assert main() == 0
    variants = json.loads(path.read_text(encoding="utf-8"))["variants"]
    assert variants.keys() == {"live", "int8", "nf4", "offloaded"}
    for variant in variants.values():
        assert variant["tokens_per_second"] > 0
        assert variant["peak_bytes"] > 0
