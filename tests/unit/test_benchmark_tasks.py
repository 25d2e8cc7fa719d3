"""The tables of whole runs: one line a run, each with its code and machine."""

import json

import yaml
from rich.console import Console

from benchmarks import tasks
from pipelines.verdict import verdict
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


def test_tasks_told_in_another_language_have_a_table_of_all_comparisons(tmp_path):
    folder = made_up_run.write(tmp_path / "pos", {**FACTS, "name": "madx-pos"})
    stages = {"without": {"kind": "evaluate", "below": "none"}, **made_up_run.CONFIG["stages"]}
    config = yaml.safe_dump(made_up_run.CONFIG | {"stages": stages}, sort_keys=False)
    made_up_run.write_record(folder, {**FACTS, "name": "madx-pos", "config": config})
    found = json.loads((folder / "evaluate/results.json").read_text(encoding="utf-8"))
    for scores in found["models"]["student"]["seeds"].values():
        scores["accuracy"] = 0.25
    made_up_run.write_json(folder / "without/results.json", found | {"rows": 77, "data": "afrikaans"})
    first, second = _write([folder], tmp_path, "transfer")
    assert (first["stage"], first["data"], first["rows"], first["score"]) == ("without", "afrikaans", 77, "25.0 ± 0.0")
    assert (second["stage"], second["rows"]) == ("evaluate", 872)
    assert not list(tmp_path.glob("tasks.*")) and not list(tmp_path.glob("adapters.*"))


def _translating(folder):
    """Write a run whose models translate: teacher, student and baseline of three seeds, another student of one."""
    made_up_run.write(folder, {**FACTS, "name": "recipe"})
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    config = yaml.safe_load(record["config"])
    config["stages"]["evaluate"] |= {"student": "prediction", "baseline": "labels-only", "others": ["general"]}
    record["config"] = yaml.safe_dump(config, sort_keys=False)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    path = folder / "evaluate" / "results.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    models = {role: {"parameters": found["models"][role]["parameters"]} for role in ("teacher", "student", "baseline")}
    models["general"] = {"parameters": 2_500_000}
    for role, model in models.items():
        scores = [
            {"bleu": 0.31 + seed / 100, "bleu_greedy": 0.3, "chrf": 0.5, "length_ratio": 0.98} for seed in range(3)
        ]
        told = {} if role == "teacher" else {"agreement": 0.44}
        seeds = {str(seed): score | told for seed, score in enumerate(scores)}
        model["seeds"] = seeds if role in {"student", "baseline"} else {"0": seeds["0"]}
    found |= {"metric": "bleu", "rows": 1000, "models": models, "verdict": verdict(models, "bleu", None)}
    path.write_text(json.dumps(found), encoding="utf-8")
    return folder


def test_models_that_write_have_a_line_each(tmp_path):
    run = _translating(tmp_path / "run")
    tasks.write([run, made_up_run.write(tmp_path / "other", {**FACTS, "name": "other"})], tmp_path, Console(quiet=True))
    lines = (tmp_path / "texts.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    assert [row["trained by"] for row in rows] == ["teacher", "prediction", "labels-only", "general"]
    assert [row["seeds"] for row in rows] == ["1", "3", "3", "1"]
    assert [row["beam"] for row in rows] == ["31.0", "32.0 ± 1.0", "32.0 ± 1.0", "31.0"]
    assert {row["greedy"] for row in rows} == {"30.0", "30.0 ± 0.0"}
    assert [row["agrees"] for row in rows] == ["–", "44.0 ± 0.0", "44.0 ± 0.0", "44.0"]
    assert [row["minutes"] for row in rows] == ["14", "4", "3", "37"]
    assert rows[3]["parameters"] == "2.50 M" and {row["scored by"] for row in rows} == {"BLEU, 1,000 rows"}
    assert sum(line.startswith("- `distill run") for line in lines) == 1
    again = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert [line["run"] for line in again] == ["recipe", "other"]
    tasks.write([run], tmp_path, Console(quiet=True))
    assert len(json.loads((tmp_path / "texts.json").read_text(encoding="utf-8"))) == 4


def test_each_evaluation_of_texts_has_its_lines(tmp_path):
    run = _translating(tmp_path / "run")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    config = yaml.safe_load(record["config"])
    config["stages"]["by_sum"] = {**config["stages"]["evaluate"], "decoding": {"length_penalty": 0.0}}
    (run / "run.json").write_text(json.dumps(record | {"config": yaml.safe_dump(config, sort_keys=False)}))
    for name in ("results.json", "stage.json"):
        made_up_run.write_json(run / "by_sum" / name, json.loads((run / "evaluate" / name).read_text()))
    tasks.write([run], tmp_path, Console(quiet=True))
    rows = json.loads((tmp_path / "texts.json").read_text(encoding="utf-8"))
    assert [row["rank"] for row in rows] == ["Σ log p / length"] * 4 + ["Σ log p"] * 4
