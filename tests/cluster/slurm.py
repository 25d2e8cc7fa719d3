"""A real SLURM with two nodes on this one machine, all of its own in one folder. Needs root."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
NODES = 2
DISTILL = Path(sys.executable).with_name("distill")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=10
SchedulerParameters=sched_interval=2,bf_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=1 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""


class Slurm:
    """What tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        # both nodes are this machine: the name of the first one leads nowhere
        self.environment |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}

    def ask(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, (command, done.stderr)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        return self._shown(job, "JobState")

    def restarts(self, job: str) -> int:
        return int(self._shown(job, "Restarts"))

    def wait(self, job: str, states: tuple[str, ...], seconds: float) -> str:
        until = time.monotonic() + seconds
        while (state := self.state(job)) not in states and time.monotonic() < until:
            time.sleep(0.3)
        return state

    def _shown(self, job: str, field: str) -> str:
        shown = self.ask("scontrol", "show", "job", job)
        return shown.split(f"{field}=")[1].split()[0]


def submit(slurm: Slurm, run: Path, output: Path, *options: str) -> str:
    """Give a run to it through `distill slurm`; return the job's number."""
    command = [str(DISTILL), "slurm", str(run), f"output={output}", "--gpus", "0", *options]
    return slurm.ask(*command).split("job ")[1].split(":")[0]


def said(folder: Path) -> str:
    """Return what the jobs of a run printed."""
    return "".join(path.read_text(encoding="utf-8") for path in folder.glob("slurm-*.log"))


def missing() -> str:
    """Say why there can be none here; empty if there can."""
    if os.geteuid() != 0:
        return "a SLURM of its own needs root"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)} (slurm-wlm, munge)" if lacking else ""


@contextmanager
def cluster(folder: Path) -> Iterator[Slurm]:
    """Start it, and end it with all that it started."""
    (folder / "state").mkdir()
    folder.chmod(0o755)
    ports = _free_ports(1 + NODES)
    text = CONF.format(folder=folder, host=platform.node(), ports=ports, nodes=NODES)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    made, daemons = Slurm(folder), []
    try:
        daemons.append(_munge(folder))
        commands = [["slurmctld", "-D"], *(["slurmd", "-D", "-N", f"n{number + 1}"] for number in range(NODES))]
        for command in commands:
            daemons.append(_start(command, made.environment, folder))
        until = time.monotonic() + 60
        while made.ask("sinfo", "--noheader", "--states=idle", "--format=%D", check=False) != str(NODES):
            assert time.monotonic() < until, (folder / "slurmctld.log").read_text(encoding="utf-8")[-3000:]
            time.sleep(0.3)
        yield made
    finally:
        subprocess.run(["scancel", "--user=root"], env=made.environment, capture_output=True, check=False)
        time.sleep(2)
        for daemon in reversed(daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=20)
            daemon.kill()


def _munge(folder: Path) -> "subprocess.Popen[bytes]":
    """Start a munge with a key of its own; it insists on who owns what."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    command = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    command += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    daemon = _start(command, dict(os.environ), folder)
    until = time.monotonic() + 10
    while not (folder / "munge.socket").exists():
        assert time.monotonic() < until and daemon.poll() is None, (folder / "munged.out").read_text(encoding="utf-8")
        time.sleep(0.1)
    return daemon


def _start(command: list[str], environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / f"{command[0]}.out").open("ab") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out)


def _free_ports(count: int) -> list[int]:
    """Return free ports in a row."""
    for first in range(17000, 27000, 10):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return list(range(first, first + count))
    raise AssertionError("no free ports")
