import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping

import pytest

from configs.errors import UserError
from configs.stages import RecordStage
from pipelines.slurm import IDLE_STARTS, Job, batch_file, shared


def _options(text: str) -> dict[str, str]:
    """What SLURM reads of the batch file, as a shell would read it."""
    lines = [shlex.split(line.removeprefix("#SBATCH "))[0] for line in text.splitlines() if line.startswith("#SBATCH")]
    return dict(line.removeprefix("--").split("=", 1) if "=" in line else (line[2:], "") for line in lines)


def test_asks_for_one_task_for_each_device(tmp_path):
    found = _options(
        batch_file(Job("tinybert/sst2", ["tinybert/sst2"], tmp_path, nodes=2, gpus=4, cpus=8, time="1:00:00"))
    )
    assert (found["nodes"], found["ntasks-per-node"], found["gpus-per-node"], found["cpus-per-task"]) == (*"2448",)
    assert found["job-name"] == "tinybert-sst2" and found["time"] == "1:00:00" and found["requeue"] == ""
    assert not {"partition", "account", "array"} & found.keys()
    assert "gpus-per-node" not in _options(batch_file(Job("x", ["x"], tmp_path, gpus=0)))


def _carry_out(
    job: Job, end: str, state: str = "RUNNING", before: Mapping[str, str] | None = None, **given: str
) -> "subprocess.CompletedProcess[str]":
    """Run the batch file for real; what belongs to SLURM is stood in for by three-line scripts beside the run, which
    do something `before`.
    """
    place = job.folder.parent
    tools = {
        "srun": 'shift; exec "$@"',
        "squeue": f"echo $@ >{place}/looked; echo {state}",
        "scontrol": f"echo $@ >{place}/asked",
        "distill": f'printf "%s\\n" "$@" >{place}/given; {end}',
    }
    for name in {*tools, *(before or {})}:
        (place / name).write_text(f"#!/bin/bash\n{(before or {}).get(name, '')}{tools.get(name, '')}\n")
        (place / name).chmod(0o755)
    job.folder.mkdir(exist_ok=True)
    (place / "job").write_text(re.sub(r"\S+/bin/distill", str(place / "distill"), batch_file(job)))
    environment = {"PATH": f"{place}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", **given}
    return subprocess.run(["bash", "job"], cwd=place, env=environment, capture_output=True, text=True, check=False)


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
    hostile = ["x.yaml", "about=a 'b' \"c\" $(touch hit) `touch hit`; touch hit", "output=r u n"]
    done = _carry_out(Job("x", hostile, tmp_path / "r u n", gpus=0), end, state)
    assert done.returncode == left, done.stderr
    assert (tmp_path / "asked").exists() == requeued
    assert (tmp_path / "given").read_text().splitlines()[:4] == ["run", *hostile]
    assert not list(tmp_path.rglob("hit"))
    assert [path.name for path in (tmp_path / "r u n").iterdir()] == [".slurm-began-17"] * requeued


@pytest.mark.parametrize(("tool", "fails"), [("squeue", 2), ("scontrol", 2), ("squeue", 9), ("scontrol", 9)])
def test_a_controller_that_is_away_is_asked_again(tmp_path, tool, fails):
    """The first calls time out."""
    times = f"echo >>{tmp_path}/tried; [ $(wc -l <{tmp_path}/tried) -gt {fails} ] || exit 1; "
    done = _carry_out(Job("x", ["x"], tmp_path / "run", gpus=0), "exit 75", before={tool: times, "sleep": "exit; "})
    assert done.returncode == 75 and (tmp_path / "asked").exists() == (fails == 2)
    assert ("error: SLURM does not take the job back; sbatch with this file goes on" in done.stderr) == (fails > 2)
    assert len((tmp_path / "tried").read_text()) == min(fails + 1, 4)


def test_a_task_of_an_array_speaks_of_itself_alone(tmp_path):
    """The number of one of them is the array's own: by that, all would be meant."""
    job = Job("x", ["x"], tmp_path / "run", gpus=0, array=4)
    _carry_out(job, "exit 75", SLURM_ARRAY_JOB_ID="17", SLURM_ARRAY_TASK_ID="3")
    assert (tmp_path / "looked").read_text().split() == ["--noheader", "--jobs=17_3", "--format=%T"]
    assert (tmp_path / "asked").read_text().split() == ["requeue", "17_3"]


def test_a_job_that_gets_nothing_done_does_not_come_back_for_ever(tmp_path):
    job, saved = Job("x", ["x"], tmp_path / "run", gpus=0), tmp_path / "run/a/step-7.ckpt"
    saved.parent.mkdir(parents=True)
    for end, came_back in [("exit 75", 3), (f"touch {saved}; exit 75", 1), ("exit 75", IDLE_STARTS - 1)]:
        for _ in range(came_back):
            _carry_out(job, end)
            assert (tmp_path / "asked").exists()
            (tmp_path / "asked").unlink()
    done = _carry_out(job, "exit 75")
    assert done.returncode == 75 and not (tmp_path / "asked").exists()
    assert f"error: {IDLE_STARTS} starts in a row got nothing done" in done.stderr
    assert not list((tmp_path / "run").glob(".slurm*"))


@pytest.mark.parametrize("given", ["", "8"])
def test_cores_are_only_asked_for_where_the_job_has_them(tmp_path, given):
    end = f"echo ${{SRUN_CPUS_PER_TASK-none}} >{tmp_path}/cores"
    _carry_out(Job("x", ["x"], tmp_path / "run", gpus=0), end, **({"SLURM_CPUS_PER_TASK": given} if given else {}))
    assert (tmp_path / "cores").read_text().strip() == (given or "none")


@pytest.mark.parametrize("time", ["4", "4:59", "0:04:59", "00:00:10"])
def test_a_job_has_time_to_get_something_done(tmp_path, time):
    with pytest.raises(UserError, match=rf"--time: {time} is .* minutes; 5 is the least"):
        batch_file(Job("x", ["x"], tmp_path, time=time))


def test_it_is_told_to_save_itself_as_long_before_its_end_as_asked(tmp_path):
    assert _options(batch_file(Job("x", ["x"], tmp_path, time="25")))["signal"] == "USR1@120"
    assert _options(batch_file(Job("x", ["x"], tmp_path, time="25", notice=1200)))["signal"] == "USR1@1200"
    with pytest.raises(UserError, match="--time: 20 is 20 minutes; 23 is the least: 1200 s before its end"):
        batch_file(Job("x", ["x"], tmp_path, time="20", notice=1200))


@pytest.mark.parametrize("override", ["machine.nodes=3", "machine.devices=2", "machine.accelerator=cpu"])
def test_what_its_options_say_is_not_said_twice_and_nothing_is_written(tmp_path, call, override):
    code, _, err = call("slurm", "demo", f"output={tmp_path / 'run'}", override, "--no-submit")
    assert code == 2 and f"error: {override}: of a job `--nodes` and `--gpus` say that; leave it out" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("time", ["5", "5:00", "0:05:00", "1-0", "1-0:0:1", "0-1:30", "0", "UNLIMITED"])
def test_times_are_written_as_slurm_reads_them(tmp_path, time):
    assert _options(batch_file(Job("x", ["x"], tmp_path, time=time)))["time"] == time


def test_what_is_no_time_is_refused(tmp_path):
    with pytest.raises(UserError, match="--time: '8h' is no time; SLURM reads minutes, hours:minutes:seconds"):
        batch_file(Job("x", ["x"], tmp_path, time="8h"))


def test_the_script_is_looked_for_beside_python_then_where_it_was_started_from(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr("sys.argv", [str(tmp_path / "user/distill")])
    job = Job("x", ["x"], tmp_path)
    assert f"    {tmp_path}/bin/python -P -m pipelines.cli run x" in batch_file(job)
    for folder in ("user", "bin"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "distill").touch()
        assert f"    {tmp_path}/{folder}/distill run x" in batch_file(job)


def test_the_command_line_runs_as_a_module():
    done = subprocess.run([sys.executable, "-P", "-m", "pipelines.cli", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and "tinybert" in done.stdout


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
