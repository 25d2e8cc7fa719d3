"""Processes of tests that start at once: forked from one that has imported what they need.

To import torch and what lies around it takes longer than most tests train. What is about starting, or about torch's own
launcher, starts as a user does.
"""

import importlib
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["deepspeed", "pipelines.stages", *(f"tests.helpers.{name}" for name in ("counted", "many", "recorded", "saving"))]
)
_SAID = ("out", "err")
POLL = 0.02
GRACE = 20.0
"""Seconds that processes have to end, once one of them has failed."""


@dataclass(frozen=True)
class Started:
    """Processes at work."""

    command: tuple[str, ...]
    every: list[BaseProcess]
    scratch: tempfile.TemporaryDirectory[str]

    def ended(self, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        """Wait for all. Where one of several fails, the others are ended, and the code is 1."""
        until = time.monotonic() + timeout
        while any(process.exitcode is None for process in self.every):
            failed = any(process.exitcode for process in self.every)
            if failed and until > (soon := time.monotonic() + GRACE):
                until = soon
                self._all("terminate")
            if time.monotonic() > until:
                self._all("kill")
                if not failed:
                    raise TimeoutError(f"{self.command} took more than {timeout:g} s")
            time.sleep(POLL)
        codes = [process.exitcode or 0 for process in self.every]
        code = codes[0] if len(codes) == 1 else int(any(codes))
        with self.scratch as folder:
            out, err = ("".join(path.read_text() for path in sorted(Path(folder).glob(f"*.{k}"))) for k in _SAID)
        return subprocess.CompletedProcess(self.command, code, out, err)

    def _all(self, what: Literal["terminate", "kill"]) -> None:
        for process in self.every:
            getattr(process, what)()


def run(
    module: str,
    *arguments: str,
    processes: int | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> "subprocess.CompletedProcess[str]":
    """Do what `python -m MODULE ARGUMENT …` does, or torch's launcher with so many processes."""
    return start(module, *arguments, processes=processes, environment=environment).ended(timeout)


def start(
    module: str, *arguments: str, processes: int | None = None, environment: Mapping[str, str] | None = None
) -> Started:
    """Begin to do so: call the `main` of a module."""
    scratch = tempfile.TemporaryDirectory(prefix="warm-")
    every = []
    for rank, place in enumerate([{}] if processes is None else _places(processes, scratch.name)):
        told = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {}), **place}
        given = (module, arguments, told, f"{scratch.name}/{rank}")
        every.append(SERVER.Process(target=_carry_out, args=given))
        every[-1].start()
    return Started((module, *arguments), every, scratch)


def _places(processes: int, scratch: str) -> list[dict[str, str]]:
    """Return the variables by which torch's launcher tells processes of one host who they are."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    same = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
        "TORCHELASTIC_ERROR_FILE": f"{scratch}/attempt_0/0/error.json",
    }
    return [{**same, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _carry_out(module: str, arguments: tuple[str, ...], environment: dict[str, str], said: str) -> None:
    for number, kind in enumerate(_SAID, start=1):
        with Path(f"{said}.{kind}").open("wb") as file:
            os.dup2(file.fileno(), number)
    multiprocessing.set_start_method("fork", force=True)  # as in a process of one's own, for those that pad batches
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()
