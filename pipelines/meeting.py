"""How processes that train find those that teach: by files in the place where all of a start meet.

A process that teaches listens on an address of its own and writes it down with a secret, which whoever calls has to
know: only those who can read the run's folder do.
"""

import hmac
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.errors import PeerLost
from distill.files import write_json
from pipelines.place import environment
from pipelines.ranks import Ranks
from pipelines.run_files import read_json
from teachers.wire import Wire

POLL = 0.2
GREETING = 10.0
"""Seconds a caller has to say who it is."""


class Meeting:
    """Where the processes of one training meet."""

    def __init__(self, ranks: Ranks, name: str, timeout: float) -> None:
        """Meet under a name that no other training of the run has; wait for `timeout` seconds for one that is to
        answer.
        """
        self._ranks = ranks
        self._name = name
        self._timeout = timeout

    def welcome(self, teacher: int, callers: list[int]) -> list[Wire]:
        """Let the ranks that train call this one, and return their wires in the given order."""
        secret, found = secrets.token_hex(16), dict[int, Wire]()
        with _listening() as (door, address), self._written(teacher, {**address, "secret": secret}):
            while len(found) < len(callers):
                self._ranks.look()
                wire = _called(door, self._timeout)
                if wire is None:
                    continue
                rank = _greeted(wire, secret)
                if rank in callers:
                    found[rank] = wire
                else:
                    wire.close()
        for wire in found.values():
            wire.send({"welcome": True})
        return [found[rank] for rank in callers]

    def dial(self, teacher: int, rank: int) -> Wire:
        """Call a rank that teaches. Raise PeerLost where it cannot be reached in time."""
        until = time.monotonic() + self._timeout
        while time.monotonic() < until:
            self._ranks.look()
            wire = self._tried(read_json(self._path(teacher)), rank)
            if wire is not None:
                return wire
            time.sleep(POLL)
        raise PeerLost(f"rank {teacher}, which teaches, timed out after {self._timeout:g} s")

    def _tried(self, address: dict[str, Any], rank: int) -> Wire | None:
        """Return a wire to an address; none where nobody answers there, or somebody else."""
        if not address:
            return None
        try:
            wire = Wire(socket.create_connection((address["host"], address["port"]), GREETING), self._timeout)
        except OSError:
            return None
        try:
            wire.send({"secret": address["secret"], "rank": rank})
            wire.receive()  # a welcome
        except PeerLost:
            wire.close()
            return None
        return wire

    @contextmanager
    def _written(self, teacher: int, address: dict[str, Any]) -> Iterator[None]:
        path = self._path(teacher)
        write_json(path, address)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _path(self, teacher: int) -> Path:
        return self._ranks.folder / f"teacher-{teacher:05}-{self._name}.json"


@contextmanager
def _listening() -> Iterator[tuple[socket.socket, dict[str, Any]]]:
    """Listen where this host is seen by rank 0's."""
    family, host = _own_address()
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.bind((host, 0))
        door.listen()
        door.settimeout(POLL)
        yield door, {"host": host, "port": door.getsockname()[1]}


def _own_address() -> tuple[socket.AddressFamily, str]:
    """Return the address from which this host speaks to rank 0's; nothing is sent."""
    at = environment()
    family, kind, _, _, there = socket.getaddrinfo(at.main_address, at.main_port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)
        return family, str(probe.getsockname()[0])


def _called(door: socket.socket, timeout: float) -> Wire | None:
    try:
        link, _ = door.accept()
    except TimeoutError:
        return None
    return Wire(link, timeout)


def _greeted(wire: Wire, secret: str) -> int | None:
    """Return the rank of a caller; none where it does not know the secret."""
    try:
        words = wire.receive().words if wire.has_news(GREETING) else {}
    except (PeerLost, ValueError):
        return None
    return words.get("rank") if hmac.compare_digest(str(words.get("secret")), secret) else None
