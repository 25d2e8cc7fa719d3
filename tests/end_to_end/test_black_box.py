"""A student of a model behind an API, of which nothing is known but what it writes."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.helpers import pairs
from tests.helpers.server import Answer, Server, echo, refuse, reply

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
    data = {"alone": source, "told": {"kind": "stage", "stage": "best"}}
    return pairs.run_file(
        tmp_path, stages, data=data, teacher={"model": str(pairs.vocabulary(tmp_path / "vocabulary"))}
    )


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
    server.script = []
    assert call("run", str(run))[0] == 0
    assert len(server.asked) == asked + 40 - 25
    assert costs(run) == (40, 120, 80, 0.00016)
    report = next((run.parent / "run").rglob("report.md")).read_text(encoding="utf-8")
    assert "40 requests, " in report and not [*(run.parent / "run/texts/shards/.answers").iterdir()]


def test_what_several_processes_paid_is_in_each_ones_results(call, run: Path, server: Server) -> None:
    """The second finds all shards written but one, asks for that, and tells of all."""
    assert call("generate", str(run))[0] == 0
    shards = sorted((run.parent / "run/texts/shards").glob("*.parquet"))
    (run.parent / "run/texts/stage.json").unlink()
    shards[0].unlink()
    assert len(shards) > 2 and call("generate", str(run))[0] == 0
    assert 40 < len(server.asked) < 60 and costs(run) == (40, 120, 80, 0.00016)


def costs(run: Path) -> tuple[float, ...]:
    told = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert told["untold"] == 0
    return tuple(told[name] for name in ("requests", "tokens_in", "tokens_out", "price"))


def empty(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"object": "chat.completion", "choices": []}


def torn(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, b'{"choices": [{"message": {"role": "assi'


def without_text(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, reply([None])


def other_shape(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, ["no", "object"]


def test_a_server_that_is_busy_breaks_and_babbles_now_and_then_changes_no_text(call, run: Path, server: Server) -> None:
    busy, broken = refuse(429, "slow down"), refuse(503, "overloaded")
    server.script = [busy, busy, echo, empty, echo, broken, torn, echo, without_text, other_shape, busy, echo]
    code, out, err = call("run", str(run), "stages.texts.endpoint.retries=2")
    assert code == 0, out + err
    assert len(server.asked) == 40 + 8
    chosen = pq.read_table(run.parent / "run/best/choices/choices.parquet").to_pydict()
    assert chosen["text"] == [source.upper() for source in chosen["source"]] and len(chosen["text"]) == 40
    told = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert told["requests"] == 40 + 4  # all that were answered, the malformed ones too: they are paid for


@pytest.mark.parametrize(
    ("answer", "requests", "expected"),
    [
        (refuse(429, "slow down"), 3, "is asked too much, after 3 tries; lower `concurrency` or set `per_minute`: "),
        (refuse(503, "overloaded"), 3, "is broken, after 3 tries: "),
        (empty, 3, "gave 0 of 1 texts, 3 times: "),
        (torn, 3, 'gave 0 of 1 texts, 3 times: {"choices": [{"message": {"role": "assi'),
        (other_shape, 3, "gave 0 of 1 texts, 3 times: "),
    ],
)
def test_a_server_that_stays_so_ends_the_run_with_one_error_and_the_same_command_goes_on(
    call, run: Path, server: Server, answer: Answer, requests: int, expected: str
) -> None:
    good = 25
    server.script = [echo] * good + [answer] * requests
    code, _, err = call("run", str(run), "stages.texts.endpoint.retries=2")
    said = " ".join(err.split())
    assert code == 2 and said.count("error:") == 1 and "Traceback" not in said
    assert f"echo-7b at {server.url} {expected}" in said and re.search(r"'\w[^']*': ", said)
    assert not (run.parent / "run/texts/stage.json").exists() and len(server.asked) == good + requests
    written = [pq.read_metadata(shard).num_rows for shard in (run.parent / "run/texts/shards").glob("*.parquet")]
    assert 0 < sum(written) <= good
    code, out, err = call("run", str(run), "stages.texts.endpoint.retries=2")
    assert code == 0, out + err
    assert len(server.asked) == requests + 40
    malformed = 0 if "tries" in expected else requests
    assert costs(run)[0] == 40 + malformed  # those that failed were answered, too, and are paid for


@pytest.mark.parametrize("answers", [[refuse(400, "filtered")], [without_text] * 3])
def test_what_the_server_will_not_write_for_is_left_out_and_told(
    call, run: Path, server: Server, answers: list[Answer]
) -> None:
    server.script = [echo] * 5 + answers
    code, out, err = call("run", str(run))
    assert code == 0, out + err
    assert "stages.texts: refused, and without a text: 1 of 40 sources" in " ".join(out.split())
    told = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert (told["rows"], told["refused"], len(told["refusals"])) == (40, 1, 1)
    chosen = pq.read_table(run.parent / "run/best/choices/choices.parquet").to_pydict()
    assert len(chosen["text"]) == 39 and all(chosen["text"])


ALONE = "stages.texts.shard_characters=1"
"""Each row makes a shard of its own."""


@pytest.mark.parametrize(("first", "requests"), [(1, 1 + 1 + 39), (7, 7 + 1 + 39)])
def test_rows_that_are_refused_before_there_is_a_text_do_not_end_the_run(
    call, run: Path, server: Server, first: int, requests: int
) -> None:
    server.script = [refuse(400, "filtered")] * first
    code, out, err = call("generate", str(run), ALONE)
    assert code == 0, out + err
    told = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert (told["shards"], told["refused"], len(told["refusals"])) == (40, 1, min(first, 5))
    assert len(server.asked) == requests  # the row, others until one has a text, and the other 39


def test_a_row_that_is_refused_at_once_after_a_stop_does_not_end_the_run(call, run: Path, server: Server) -> None:
    server.script = [echo] * 5 + [refuse(401, "no more")]
    assert call("generate", str(run), ALONE)[0] == 2
    server.script = [refuse(400, "filtered")] * 20
    code, out, err = call("generate", str(run), ALONE)
    assert code == 0, out + err
    told = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert told["refused"] == 20 and len(server.asked) == 5 + 1 + 35


@pytest.mark.parametrize("override", [ALONE, "stages.texts.shard_characters=100000"])
@pytest.mark.parametrize(("limit", "asked"), [(40, 8), (3, 3)])
def test_a_server_that_refuses_all_ends_the_run_after_few_rows(
    call, run: Path, server: Server, override: str, limit: int, asked: int
) -> None:
    server.script = [refuse(400, "no such parameter")] * 40
    code, _, err = call("run", str(run), override, f"data.alone.limit={limit}")
    said = " ".join(err.split())
    assert code == 2 and "no such parameter" in said and f"it was asked for {asked} rows, and refused all" in said
    assert len(server.asked) == asked and not [*(run.parent / "run/texts/shards").glob("*.parquet")]


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
