import os
import re
import shlex
import subprocess

import pytest

from configs.errors import UserError
from configs.stages import RecordStage
from pipelines.slurm import Job, batch_file, shared


def _options(text: str) -> dict[str, str]:
    """What SLURM reads of the batch file, as a shell would read it."""
    lines = [shlex.split(line.removeprefix("#SBATCH "))[0] for line in text.splitlines() if line.startswith("#SBATCH")]
    return dict(line.removeprefix("--").split("=", 1) if "=" in line else (line[2:], "") for line in lines)


def test_asks_for_one_task_for_each_device(tmp_path):
    found = _options(
        batch_file(Job("tinybert/sst2", ["tinybert/sst2"], tmp_path, nodes=2, gpus=4, cpus=8, time="1:00"))
    )
    assert (found["nodes"], found["ntasks-per-node"], found["gpus-per-node"], found["cpus-per-task"]) == (*"2448",)
    assert found["job-name"] == "tinybert-sst2" and found["time"] == "1:00" and found["requeue"] == ""
    assert not {"partition", "account", "array"} & found.keys()
    assert "gpus-per-node" not in _options(batch_file(Job("x", ["x"], tmp_path, gpus=0)))


@pytest.mark.parametrize(
    ("end", "state", "left", "requeued"),
    [
        ("exit 0", "RUNNING", 0, False),
        ("exit 75", "RUNNING", 75, True),
        ("kill -USR1 $$", "RUNNING", 75, True),
        ("exit 75", "COMPLETING", 75, False),
        ("exit 2", "RUNNING", 2, False),
    ],
)
def test_comes_back_only_where_it_stopped_and_was_not_cancelled(tmp_path, end, state, left, requeued):
    """The batch file runs for real; what belongs to SLURM is stood in for by three-line scripts."""
    tools = {
        "srun": 'shift; exec "$@"',
        "squeue": f"echo {state}",
        "scontrol": f"echo $@ >{tmp_path}/asked",
        "distill": f'printf "%s\\n" "$@" >{tmp_path}/given; {end}',
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    hostile = ["x.yaml", "about=a 'b' \"c\" $(touch hit) `touch hit`; touch hit", "output=r u n"]
    text = batch_file(Job("x", hostile, tmp_path / "r u n", gpus=0))
    text = re.sub(r"\S+/bin/distill", str(tmp_path / "distill"), text)
    (tmp_path / "r u n").mkdir()
    (tmp_path / "job").write_text(text)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    done = subprocess.run(["bash", "job"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == left, done.stderr
    assert (tmp_path / "asked").exists() == requeued
    assert (tmp_path / "given").read_text().splitlines()[:4] == ["run", *hostile]
    assert not list(tmp_path.rglob("hit")) and not list((tmp_path / "r u n").iterdir())


def test_writes_texts_by_an_array(tmp_path):
    text = batch_file(Job("x", ["x.yaml"], tmp_path, gpus=0, array=8, verb="generate"))
    assert _options(text)["array"] == "0-7" and "%A_%a" in _options(text)["output"] and " generate x.yaml" in text
    with pytest.raises(UserError, match="each of its jobs is on one host"):
        batch_file(Job("x", ["x.yaml"], tmp_path, nodes=2, array=8))


def test_an_array_shares_what_can_be_shared():
    record = RecordStage(kind="record", data=("train",))
    assert shared({"answers": record}) == "record"
    with pytest.raises(UserError, match="--array: jobs share what `generate` and `record` stages write"):
        shared({})


def test_refuses_what_would_end_a_line(tmp_path):
    with pytest.raises(UserError, match="--partition: 'a\\\\nb' holds a character"):
        batch_file(Job("x", ["x"], tmp_path, partition="a\nb"))


def test_without_sbatch_the_file_stays(tmp_path, monkeypatch, call):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = call("slurm", "demo", f"output={tmp_path / 'run'}", "--nodes", "2")
    assert code == 2 and "sbatch: not found on this machine" in err and err.count("error:") == 1
    assert "--nodes=2" in (tmp_path / "run/job.sbatch").read_text()
    mine = ["--no-submit", "--output", str(tmp_path / "mine")]
    assert call("slurm", "demo", f"output={tmp_path / 'run'}", *mine)[0] == 0
    assert (tmp_path / "mine").is_file()
