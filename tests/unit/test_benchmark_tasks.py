"""The table of whole runs: one line a run, each with its code and machine."""

import json

from rich.console import Console

from benchmarks import tasks
from tests.helpers import made_up_run

FACTS = {"code": "0.1.0, commit abc", "machine": "CPU, 2 threads, bf16", "processor": "A CPU (2 cores, AVX512)"}


def _write(folders, target):
    tasks.write(folders, target, Console(quiet=True))
    return json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))


def test_a_run_takes_the_place_of_an_older_one_of_its_name_and_others_stay(tmp_path):
    target = tmp_path / "tasks.md"
    first = made_up_run.write(tmp_path / "a", {**FACTS, "name": "a"})
    other = made_up_run.write(tmp_path / "b", {**FACTS, "name": "b"})
    again = made_up_run.write(tmp_path / "c", {**FACTS, "name": "a", "code": "0.2.0"})
    assert [line["run"] for line in _write([first], target)] == ["a"]
    assert [line["run"] for line in _write([other], target)] == ["a", "b"]
    assert [line["code"] for line in _write([again], target)] == ["0.2.0", "0.1.0, commit abc"]
    text = target.read_text(encoding="utf-8")
    assert text.count("| a |") == text.count("| b |") == 1
    assert "version 0.2.0; A CPU (2 cores, AVX512); CPU, 2 threads, bf16" in text
