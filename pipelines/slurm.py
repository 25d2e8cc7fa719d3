"""Have SLURM carry out a run: a batch file that people can read, and its submission."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.stages import Stage
from distill import exit_codes
from distill.files import write_text

NOTICE_SECONDS = 120
"""Time between SLURM's signal and the end of the job's time: what a step and a checkpoint take, with some to spare."""
LEAST_SECONDS = 180
"""Shortest time of a job before that signal: less is over before anything but starting is done."""
IDLE_STARTS = 5
"""Starts in a row after which a job that got nothing done does not come back."""


@dataclass(frozen=True)
class Job:
    """A run and what it is given."""

    name: str
    arguments: Sequence[str]
    """Preset or file, overrides and flags of `distill run`."""
    folder: Path
    """Where the run writes."""
    nodes: int = 1
    gpus: int = 1
    """On each host; none: one process on its CPU."""
    cpus: int | None = None
    """Cores of each process."""
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    notice: int = NOTICE_SECONDS
    """Seconds before the end of its time at which it is told to save itself."""
    array: int | None = None
    """Jobs that do one thing together, instead of one that does everything."""
    verb: str = "run"
    """The command each carries out."""

    @property
    def log(self) -> Path:
        """The file SLURM writes what the job says to."""
        return self.folder / ("slurm-%A_%a.log" if self.array else "slurm-%j.log")


def shared(stages: Mapping[str, Stage]) -> str:
    """Return the command whose work an array of jobs can share. Raise UserError where a run has no such stage."""
    kinds = {stage.kind for stage in stages.values()}
    for verb in ("generate", "record"):
        if verb in kinds:
            return verb
    raise UserError(
        "--array: jobs share what `generate` and `record` stages write, and this run has none; leave it out"
    )


def batch_file(job: Job) -> str:
    """Return the text of the batch file. Raise UserError for what cannot be asked of SLURM."""
    if job.array and job.nodes > 1:
        raise UserError(f"--array: each of its jobs is on one host; --nodes {job.nodes} belongs to a run without it")
    _check_time(job.time, job.notice)
    _check_overrides(job.arguments)
    return _FILE.format(
        options="\n".join(f"#SBATCH --{name}{_value(name, value)}" for name, value in _options(job)),
        here=shlex.quote(str(Path.cwd())),
        run=shlex.quote(str(job.folder.absolute())),
        job=_ARRAY_TASK if job.array else "$SLURM_JOB_ID",
        command=" ".join(map(shlex.quote, _command(job))),
        stopped=exit_codes.STOPPED,
        stops=" | ".join(map(str, _STOPS)),
        idle=IDLE_STARTS,
    )


def submit(path: Path) -> str:
    """Hand a batch file to SLURM and return the job's number. Raise UserError where it is not taken."""
    if shutil.which("sbatch") is None:
        raise UserError(f"sbatch: not found on this machine; the job is in {path}: submit it where SLURM is")
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"sbatch: {done.stderr.strip() or done.stdout.strip()}; the job is in {path}")
    return done.stdout.strip().split(";")[0]


def write(job: Job, path: Path | None) -> Path:
    """Write the batch file of a job, by default into the run's folder, and return where it is."""
    text, path = batch_file(job), path or job.folder / "job.sbatch"
    job.folder.mkdir(parents=True, exist_ok=True)  # SLURM opens the log before the run begins
    write_text(path, text)
    return path


_ARRAY_TASK = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
"""Of one task the job's own number is that of the array, by which all are meant."""
_STOPS = (exit_codes.STOPPED, *map(exit_codes.of_death, (signal.SIGUSR1, signal.SIGTERM)))
_FILE = """\
#!/bin/bash
# Written by `distill slurm`; `sbatch` with this file again goes on where the run stopped.
{options}

trap : TERM USR1  # meant for the run, which saves itself and stops
cd {here} || exit 2
run={run}
job={job}
began=$run/.slurm-began-$job  # holds how many starts in a row got nothing done
stopped=$run/.slurm-stopped-$job
touch "$began"
rm -f "$stopped"
export PYTHONUNBUFFERED=1
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# One task for each device. A task that fails ends the others. One that stopped in order ({stopped}), or that a signal
# ended before it could (USR1, TERM), must not: it leaves a file instead of its exit code.
srun --kill-on-bad-exit=1 bash -c 'trap : TERM USR1; stopped=$1; shift
    "$@"; code=$?
    case $code in {stops}) touch "$stopped"; code=0 ;; esac
    exit $code' task "$stopped" \\
    {command}
code=$?

# Pre-empted, or out of time: back into the queue, to go on from there; not for ever, if nothing gets done in between.
# A job that was cancelled stays away.
if [ $code -eq 0 ] && [ -e "$stopped" ]; then
    code={stopped} idle=$(($(cat "$began") + 1))
    made=$(find "$run" -newer "$began" \\( -name 'step-*.ckpt' -o -name '*.parquet' -o -name '*.safetensors' \\
        -o -name '*.npy' -o -name stage.json \\) -print -quit)
    [ -z "$made" ] || idle=0
    if [ $idle -ge {idle} ]; then
        echo "error: $idle starts in a row got nothing done; a longer --time, or checkpoints more often" >&2
    else
        for pause in 1 5 10 20; do  # what controls the jobs may be away for a moment
            state=$(squeue --noheader --jobs="$job" --format=%T) || state=unknown
            if [ "$state" = RUNNING ]; then
                echo $idle >"$began"
                rm -f "$stopped"
                scontrol requeue "$job" && exit $code
            elif [ "$state" != unknown ]; then
                break
            fi
            sleep $pause
        done
        case $state in
            RUNNING | unknown) echo "error: SLURM does not take the job back; sbatch with this file goes on" >&2 ;;
        esac
    fi
fi
rm -f "$stopped" "$began"
exit $code
"""


def _options(job: Job) -> Iterator[tuple[str, object]]:
    every: dict[str, object] = {
        "job-name": re.sub(r"[^\w.-]+", "-", job.name),
        "nodes": job.nodes,
        "ntasks-per-node": job.gpus or 1,
        "gpus-per-node": job.gpus or None,
        "cpus-per-task": job.cpus,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "array": f"0-{job.array - 1}" if job.array else None,
        "output": str(job.folder.absolute()).replace("%", "%%") + f"/{job.log.name}",
        "open-mode": "append",
        "signal": f"USR1@{job.notice}",
        "requeue": "",
    }
    yield from ((name, value) for name, value in every.items() if value is not None)


def _value(name: str, value: object) -> str:
    text = str(value)
    if not text.isprintable():
        raise UserError(f"--{name}: {text!r} holds a character that a line of a batch file cannot")
    return f"={shlex.quote(text)}" if text else ""


def _command(job: Job) -> list[str]:
    device = ["machine.accelerator=gpu", f"machine.devices={job.gpus}"]
    device = device if job.gpus else ["machine.accelerator=cpu", "machine.devices=1"]
    return [*_program(), job.verb, *job.arguments, f"machine.nodes={job.nodes}", *device]


def _program() -> list[str]:
    """Return what starts `distill` on other hosts: its script, which an installation may not have put beside python."""
    for script in (Path(sys.executable).with_name("distill"), Path(sys.argv[0]).absolute()):
        if script.name == "distill" and script.is_file():
            return [str(script)]
    return [sys.executable, "-P", "-m", "pipelines.cli"]


def _check_overrides(arguments: Sequence[str]) -> None:
    """Raise UserError for settings that the options of the job already say."""
    for argument in arguments:
        if argument.partition("=")[0] in ("machine.nodes", "machine.devices", "machine.accelerator"):
            raise UserError(f"{argument}: of a job `--nodes` and `--gpus` say that; leave it out")


def _check_time(time: str | None, notice: int) -> None:
    """Raise UserError for a time that SLURM cannot read, or in which a job gets nothing done."""
    if time is None or time.upper() in ("INFINITE", "UNLIMITED"):
        return
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if found is None:
        raise UserError(f"--time: {time!r} is no time; SLURM reads minutes, hours:minutes:seconds or days-hours")
    days, *given = found.groups()
    parts = [int(part) for part in given if part is not None]
    units = (60.0, 1.0, 1 / 60) if days is not None or len(parts) == 3 else (1.0, 1 / 60)
    minutes = 24 * 60 * int(days or 0) + sum(part * unit for part, unit in zip(parts, units, strict=False))
    least = (LEAST_SECONDS + notice) / 60
    if 0 < minutes < least:  # 0 is no limit
        raise UserError(
            f"--time: {time} is {minutes:g} minutes; {least:g} is the least: {notice} s before its end a job is asked "
            "to save itself"
        )
