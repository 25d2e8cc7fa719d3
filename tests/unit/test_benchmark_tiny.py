"""The benchmark of the TinyBERT step: it takes its steps through the trainer of a run."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.levers import LEVERS, Lever


def test_the_step_is_measured_against_a_bare_loop_and_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "found.json"
    alone = ["--peer", "none", "--precision", "fp32", "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["benchmarks", "tiny", "--small", *alone, "--json", str(path)])
    assert main() in (1, 3)  # how fast tiny models are says nothing, and there is no peer
    assert "skipped" in capsys.readouterr().out
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {result["why"] for result in found["results"] if result["value"] is None} == {"no peer was asked for"}
    told = {result["goal"]["name"]: result["value"] for result in found["results"]}
    assert {name for name, value in told.items() if value is None} == {"P1-fp32", "P2-fp32", "P3-fp32", "M4-fp32"}
    assert told["P5-fp32"] > 0
    own, bare = (found["samples"][f"{name} fp32"] for name in ("ours", "bare"))
    assert [lap["work"] for lap in own] == [lap["work"] for lap in bare]  # the same rows


@pytest.mark.parametrize("lever", LEVERS, ids=lambda lever: lever.without)
def test_a_lever_takes_away_something_that_is_there(lever: Lever) -> None:
    with lever.during():
        pass
