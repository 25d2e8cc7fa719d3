"""What holds for every test: nothing leaves this machine."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers.cli import caller
from tests.helpers.server import Server

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `distill …` in this process; return exit code, output and errors."""
    return caller(monkeypatch, capsys)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as an OpenAI-compatible one does."""
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give processes that a test starts one thread each, however many one before it was prepared for."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sockets reach this machine only: a run on local folders must not ask any hub for anything."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOCAL:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
