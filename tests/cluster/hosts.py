"""Two hosts with their own addresses on one machine: network namespaces and a cable between them. Needs root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIDES = ("a", "b")


class Hosts:
    """What tests ask of them."""

    def __init__(self, name: str) -> None:
        self.names = {side: f"{name}{side}" for side in SIDES}
        self.addresses = {side: f"10.200.0.{number + 1}" for number, side in enumerate(SIDES)}

    def link(self, state: str) -> None:
        """Pull the cable of the second host, or put it back."""
        _ip("-n", self.names["b"], "link", "set", self.names["b"], state)

    def torchrun(self, *program: str, port: int) -> "list[subprocess.Popen[str]]":
        """Start a program, by its path or as `-m MODULE`, with one process on each host."""
        return [self._start(number, side, port, program) for number, side in enumerate(SIDES)]

    def _start(self, number: int, side: str, port: int, program: tuple[str, ...]) -> "subprocess.Popen[str]":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        launcher += [f"--node-rank={number}", f"--master-addr={self.addresses['a']}", f"--master-port={port}"]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": self.names[side], "PYTHONPATH": str(ROOT)}
        command = ["ip", "netns", "exec", self.names[side], *launcher, *program]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def missing() -> str:
    """Say why there can be none here; empty if there can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root and iproute2"
    made = subprocess.run(["ip", "netns", "add", "kdprobe"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", "kdprobe"], capture_output=True, check=False)
    return f"network namespaces cannot be made here: {made.stderr.strip()}" if made.returncode else ""


@contextmanager
def hosts() -> Iterator[Hosts]:
    """Make them, and remove them with the cable."""
    made = Hosts(f"kd{os.getpid() % 10000}")
    first, second = made.names.values()
    try:
        for name in (first, second):
            _ip("netns", "add", name)
        _ip("link", "add", first, "type", "veth", "peer", "name", second)
        for side, name in made.names.items():
            _ip("link", "set", name, "netns", name)
            _ip("-n", name, "address", "add", f"{made.addresses[side]}/24", "dev", name)
            for device in ("lo", name):
                _ip("-n", name, "link", "set", device, "up")
        yield made
    finally:
        for name in (first, second):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
