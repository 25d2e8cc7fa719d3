"""Several processes write the texts of one run: they share the work, may die and come late, and leave one table."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import pairs
from tests.helpers.server import Server, echo

ROWS, WORKERS = 60, 3
SOURCES = [f"{text} {number}" for number, (text, _) in enumerate(pairs.sentences(ROWS, seed=9))]


@pytest.fixture
def run(tmp_path: Path, server: Server) -> Path:
    (tmp_path / "alone.txt").write_text("\n".join(SOURCES), encoding="utf-8")
    alone = {"path": str(tmp_path / "alone.txt"), "format": "lines", "columns": {"target": None}}
    endpoint = {"kind": "openai", "model": "echo-7b", "url": server.url, "concurrency": 1}
    stages = {
        "texts": {"kind": "generate", "data": ["alone"], "shard_characters": 150, "endpoint": endpoint},
        "best": {"kind": "select", "generated": "texts", "filters": None},
    }
    return pairs.run_file(
        tmp_path, stages, data={"alone": alone}, teacher={"model": str(pairs.vocabulary(tmp_path / "vocabulary"))}
    )


def start(run: Path) -> subprocess.Popen[str]:
    script = Path(sys.executable).with_name("distill")
    command = [str(script), "generate", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "texts/shards").glob("*.parquet")}


def test_they_share_the_work_and_one_may_be_killed(call, run: Path, server: Server) -> None:
    """All three are in the middle of a shard when one dies: its row is asked again, and no other."""
    busy, go_on = threading.Semaphore(0), threading.Event()

    def held(body: dict[str, Any]) -> tuple[int, Any]:
        busy.release()
        go_on.wait(60)
        return echo(body)

    server.script = [held] * WORKERS
    workers = [start(run) for _ in range(WORKERS)]
    for _ in workers:
        assert busy.acquire(timeout=200)
    workers[0].kill()
    workers[0].communicate()
    go_on.set()
    for worker in workers[1:]:
        _, err = worker.communicate(timeout=200)
        assert (worker.returncode, err) == (0, "")
    assert len(server.asked) == ROWS + 1
    code, out, _ = call("generate", str(run))  # comes late: nothing is left to do
    assert code == 0 and "texts: done before" in out and len(server.asked) == ROWS + 1
    assert call("generate", str(run), f"output={run.parent / 'alone'}")[0] == 0
    assert shards(run.parent / "run") == shards(run.parent / "alone") != {}
    code, out, err = call("run", str(run))
    assert code == 0, out + err
    assert "60 of 60 texts" in out


def test_they_help_a_run_and_a_second_run_is_told_how(call, run: Path, server: Server) -> None:
    server.delay = 0.05
    script = Path(sys.executable).with_name("distill")
    whole = subprocess.Popen([str(script), "run", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 200
    while not server.asked and time.monotonic() < until:
        time.sleep(0.05)
    code, _, err = call("run", str(run))
    assert code == 2 and "or help that run to write its texts: `distill generate`" in err
    code, _, err = call("generate", str(run))
    assert (code, err) == (0, "")
    out, err = whole.communicate(timeout=200)
    assert (whole.returncode, err) == (0, ""), out
    assert len(server.asked) == ROWS and (run.parent / "run/best/part-00000.parquet").is_file()
    told = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))["results"]
    assert told["rows"] == ROWS and 0 < told["rows_here"] < ROWS


@pytest.mark.slow
def test_ranks_of_one_start_write_together(run: Path, server: Server) -> None:
    """As torchrun starts them: rank 0 checks and marks, rank 1 writes its share."""
    server.delay = 0.1
    script = Path(sys.executable).with_name("torchrun")
    command = [str(script), "--nproc-per-node=2", "--no-python", str(Path(sys.executable).with_name("distill"))]
    done = subprocess.run([*command, "run", str(run)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(server.asked) == ROWS and server.most_at_once == 2
    assert (run.parent / "run/best/part-00000.parquet").is_file()
