"""Have SLURM carry out a run: a batch file that people can read, and its submission."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.stages import Stage
from distill.files import write_text

NOTICE_SECONDS = 120
"""Time between SLURM's signal and the end of the job's time: what a step and a checkpoint take, with some to spare."""


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
    return _FILE.format(
        options="\n".join(f"#SBATCH --{name}{_value(name, value)}" for name, value in _options(job)),
        here=shlex.quote(str(Path.cwd())),
        mark=shlex.quote(str(job.folder.absolute() / ".slurm-stopped-")),
        command=" ".join(map(shlex.quote, _command(job))),
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
    job.folder.mkdir(parents=True, exist_ok=True)  # SLURM opens the log before the run begins
    path = path or job.folder / "job.sbatch"
    write_text(path, batch_file(job))
    return path


_FILE = """\
#!/bin/bash
# Written by `distill slurm`; `sbatch` with this file again goes on where the run stopped.
{options}

trap : TERM USR1  # meant for the run, which saves itself and stops
cd {here} || exit 2
stopped={mark}$SLURM_JOB_ID
rm -f "$stopped"
export PYTHONUNBUFFERED=1 SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}

# One task for each device. A task that fails ends the others. One that stopped in order (75), or that a signal ended
# before it could (USR1, TERM), must not: it leaves a file instead of its exit code.
srun --kill-on-bad-exit=1 bash -c 'trap : TERM USR1; stopped=$1; shift
    "$@"; code=$?
    case $code in 75 | 138 | 143) touch "$stopped"; code=0 ;; esac
    exit $code' task "$stopped" \\
    {command}
code=$?

# Pre-empted, or out of time: back into the queue, to go on from there. A job that was cancelled stays away.
if [ $code -eq 0 ] && [ -e "$stopped" ]; then
    code=75
    [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ] && scontrol requeue "$SLURM_JOB_ID"
fi
rm -f "$stopped"
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
        "signal": f"USR1@{NOTICE_SECONDS}",
        "requeue": "",
    }
    yield from ((name, value) for name, value in every.items() if value is not None)


def _value(name: str, value: object) -> str:
    text = str(value)
    if not text.isprintable():
        raise UserError(f"--{name}: {text!r} holds a character that a line of a batch file cannot")
    return f"={shlex.quote(text)}" if text else ""


def _command(job: Job) -> list[str]:
    script = Path(sys.executable).with_name("distill")
    device = ["machine.accelerator=gpu", f"machine.devices={job.gpus}"]
    device = device if job.gpus else ["machine.accelerator=cpu", "machine.devices=1"]
    return [str(script), job.verb, *job.arguments, f"machine.nodes={job.nodes}", *device]
