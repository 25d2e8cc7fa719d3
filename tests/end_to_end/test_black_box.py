"""A student of a model behind an API, of which nothing is known but what it writes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.data import Task
from configs.teachers import FreshTeacher
from teachers import fresh
from tests.helpers import pairs
from tests.helpers.server import Server, echo, refuse

STAGES = {
    "texts": {"kind": "generate", "data": ["alone"], "shard_characters": 200},
    "best": {"kind": "select", "generated": "texts", "filters": {"copies": None}},
    "student": {
        "kind": "train",
        "teacher": "none",
        "data": ["told"],
        "objective": [{"kind": "task"}],
        "training": pairs.TRAINING,
    },
}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path, server: Server) -> Path:
    alone = [text for text, _ in pairs.sentences(40, seed=9)]
    (tmp_path / "alone.txt").write_text("\n".join(alone), encoding="utf-8")
    endpoint = {
        "kind": "openai",
        "model": "echo-7b",
        "url": server.url,
        "price_out": 2.0,
        "retries": 0,
        "concurrency": 1,
    }
    stages = {**STAGES, "texts": {**STAGES["texts"], "endpoint": endpoint}}
    source = {"path": str(tmp_path / "alone.txt"), "format": "lines", "columns": {"target": None}}
    texts = [text for pair in pairs.sentences(100) for text in pair]
    sizes = FreshTeacher.model_validate_json(json.dumps(pairs.TEACHER))
    vocabulary = fresh.make(sizes, Task(kind="generation"), lambda: iter(texts), 0, tmp_path / "vocabulary")
    data = {"alone": source, "told": {"kind": "stage", "stage": "best"}}
    return pairs.run_file(tmp_path, stages, data=data, teacher={"model": str(vocabulary)})


def test_a_student_learns_from_its_answers(call, run: Path, server: Server) -> None:
    code, out, err = call("run", str(run))
    assert code == 0, out + err
    told = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert told["engine"] == f"echo-7b at {server.url}"
    assert (told["requests"], told["tokens_out"], told["price"]) == (40, 80, 0.00016)
    assert (run.parent / "run/seed-0/student/model/model.safetensors").is_file()


def test_a_refusal_half_way_loses_nothing_that_was_paid_for(call, run: Path, server: Server) -> None:
    server.script = [echo] * 25 + [refuse(401, "no more")] * 3
    code, _, err = call("run", str(run))
    assert code == 2 and "401" in err
    asked = len(server.asked)
    written = [pq.read_metadata(shard).num_rows for shard in (run.parent / "run/texts/shards").glob("*.parquet")]
    assert sum(written) > 0
    server.script = []
    assert call("run", str(run))[0] == 0
    assert len(server.asked) == asked + 40 - sum(written)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.texts.endpoint.model=echo-8b", "has no model `echo-8b`; did you mean `echo-7b`?"),
        ("stages.texts.endpoint.url=http://127.0.0.1:9/v1", "127.0.0.1:9"),
        ("stages.texts.endpoint.key=NO_SUCH_KEY", "NO_SUCH_KEY"),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_said_at_set_up(call, run: Path, override: str, expected: str) -> None:
    code, _, err = call("check", str(run), override)
    assert code == 2 and expected in " ".join(err.split())
