"""The tables of whole runs: one line a run, each with its code and machine."""

import json

from rich.console import Console

from benchmarks import tasks
from tests.helpers import made_up_run

FACTS = {"code": "0.1.0, commit abc", "machine": "CPU, 2 threads, bf16", "processor": "A CPU (2 cores, AVX512)"}


def _write(folders, results, table="tasks"):
    tasks.write(folders, results, Console(quiet=True))
    return json.loads((results / f"{table}.json").read_text(encoding="utf-8"))


def _held(folder, parameters):
    """Write a run whose student is an adapter of so many parameters."""
    made_up_run.write(folder, {**FACTS, "name": "recipe"})
    path = folder / "evaluate" / "results.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    for role in ("student", "baseline"):
        found["models"][role] |= {"own": parameters, "megabytes": 4 * parameters / 1e6}
    path.write_text(json.dumps(found), encoding="utf-8")
    return folder


def test_a_run_takes_the_place_of_an_older_one_of_its_name_and_others_stay(tmp_path):
    first = made_up_run.write(tmp_path / "a", {**FACTS, "name": "a"})
    other = made_up_run.write(tmp_path / "b", {**FACTS, "name": "b"})
    again = made_up_run.write(tmp_path / "c", {**FACTS, "name": "a", "code": "0.2.0"})
    assert [line["run"] for line in _write([first], tmp_path)] == ["a"]
    assert [line["run"] for line in _write([other], tmp_path)] == ["a", "b"]
    assert [line["code"] for line in _write([again], tmp_path)] == ["0.2.0", "0.1.0, commit abc"]
    text = (tmp_path / "tasks.md").read_text(encoding="utf-8")
    assert text.count("| a |") == text.count("| b |") == 1
    assert "version 0.2.0; A CPU (2 cores, AVX512); CPU, 2 threads, bf16" in text
    assert not (tmp_path / "adapters.md").exists()


def test_runs_of_adapters_have_a_table_of_their_own_with_what_each_holds(tmp_path):
    lora, bitfit = _held(tmp_path / "lora", 123_456), _held(tmp_path / "bitfit", 789)
    lines = _write([lora, bitfit], tmp_path, "adapters")
    assert [(line["run"], line["held"]) for line in lines] == [("lora", 123_456), ("bitfit", 789)]
    head, _, first, second = (tmp_path / "adapters.md").read_text(encoding="utf-8").splitlines()[2:6]
    assert head.endswith("| minutes | parameters held | MB |")
    assert first.startswith("| lora |") and first.endswith("| 123,456 | 0.49 |")
    assert second.endswith("| 789 | 0.00 |")
    assert head.count("|") == first.count("|")
    assert not (tmp_path / "tasks.md").exists()
