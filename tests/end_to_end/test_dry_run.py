"""What writing will take is said before it is begun: measured on real rows, and nothing is left behind."""

import re
from pathlib import Path

import pytest

from tests.helpers import pairs
from tests.helpers.server import Server, refuse

ROWS, SAMPLE, WARM = 80, 20, 4
DELAY = 0.1


@pytest.fixture
def run(tmp_path: Path, server: Server) -> Path:
    texts = [f"{text} {number}" for number, (text, _) in enumerate(pairs.sentences(ROWS, seed=9))]
    (tmp_path / "alone.txt").write_text("\n".join(texts), encoding="utf-8")
    alone = {"path": str(tmp_path / "alone.txt"), "format": "lines", "columns": {"target": None}}
    endpoint = {"kind": "openai", "model": "echo-7b", "url": server.url, "concurrency": 1, "price_out": 1e6}
    stages = {"texts": {"kind": "generate", "data": ["alone"], "shard_characters": 300, "endpoint": endpoint}}
    vocabulary = pairs.vocabulary(tmp_path / "vocabulary")
    return pairs.run_file(tmp_path, stages, data={"alone": alone}, teacher={"model": str(vocabulary)})


def told(out: str) -> dict[str, str]:
    found = re.findall(r"^\s*(rows|shards|speed|time|disk|requests|price)\s+(\S.*?)\s*$", out, re.MULTILINE)
    return dict(found)


def number(text: str) -> float:
    return float(text.split()[0].replace(",", "").rstrip(","))


def test_the_estimate_is_what_the_writing_takes(call, run: Path, server: Server) -> None:
    server.delay = DELAY
    code, out, err = call("generate", str(run), "--dry-run", "--sample", str(SAMPLE))
    assert code == 0, err
    assert len(server.asked) == WARM + SAMPLE and not (run.parent / "run").exists()
    found = told(out)
    assert found["rows"] == str(ROWS)
    speed = number(found["speed"])
    assert 0.3 / DELAY < speed < 1 / DELAY  # a request takes its delay, and little more
    assert number(found["time"]) == pytest.approx(ROWS / speed / 60, rel=0.5, abs=0.1)
    assert number(found["requests"]) == pytest.approx(ROWS, rel=0.3)
    assert number(found["price"]) == pytest.approx(2 * number(found["requests"]), abs=2)
    server.delay = 0.0
    assert call("generate", str(run))[0] == 0
    shards = sorted((run.parent / "run/texts/shards").glob("*.parquet"))
    assert number(found["shards"]) == len(shards) > 3
    assert number(found["disk"]) == pytest.approx(sum(path.stat().st_size for path in shards) / 1e6, rel=0.3, abs=0.01)
    shards[0].unlink()
    _, out, _ = call("generate", str(run), "--dry-run", "--sample", str(SAMPLE))
    assert told(out)["shards"] == f"{len(shards)}, 1 of them still to be written"
    assert number(told(out)["requests"]) < ROWS / 2


def test_it_measures_the_teacher_itself_and_the_same_rows_each_time(call, run: Path, server: Server) -> None:
    for _ in range(2):
        code, out, _ = call(
            "generate", str(run), "stages.texts.endpoint=null", "stages.texts.decoding.max_tokens=4", "--dry-run"
        )
        assert code == 0 and "64 rows" in out and "requests" not in told(out)
        call("generate", str(run), "--dry-run", "--sample", "5")
    half = len(server.asked) // 2
    asked = [body["messages"][-1]["content"] for body in server.asked]
    assert asked[:half] == asked[half:] and half == WARM + 5


def test_rows_that_an_api_refuses_are_measured_with_the_others(call, run: Path, server: Server) -> None:
    server.script = [refuse(400, "filtered")] * (WARM + 1)
    code, out, err = call("generate", str(run), "--dry-run", "--sample", str(SAMPLE))
    assert code == 0 and told(out)["rows"] == str(ROWS), err
    server.script = [refuse(400, "no such parameter")] * 20
    code, _, err = call("generate", str(run), "--dry-run", "--sample", str(SAMPLE))
    assert code == 2 and "it was asked for 8 rows, and refused all" in " ".join(err.split())
    assert len(server.script) == 20 - 8 and not (run.parent / "run").exists()


def test_a_run_that_writes_nothing_has_no_estimate(call, run: Path) -> None:
    stage = "{kind: train, teacher: none, data: [train], objective: [{kind: task}], training: {epochs: 1}}"
    code, _, err = call("generate", str(run), f"stages={{learn: {stage}}}", "--dry-run")
    assert code == 2 and "stages: none of kind `generate`" in err
