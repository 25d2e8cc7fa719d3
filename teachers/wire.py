"""A connection between a process that trains and one that teaches: tensors, and a few words about them.

Nothing is pickled: what arrives are numbers, and JSON.
"""

import json
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distill.errors import PeerLost

_LENGTH = struct.Struct("!I")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
}


@dataclass(frozen=True)
class Message:
    """What is said at once."""

    words: dict[str, Any]
    """Anything that JSON can hold."""
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Wire:
    """One end of a connection. One thread may send while another receives."""

    def __init__(self, link: socket.socket, timeout: float) -> None:
        """Take a connected socket; an end that neither takes nor gives anything for `timeout` seconds is lost."""
        self._link = link
        self._link.settimeout(timeout)
        self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._news = select.poll()
        self._news.register(self._link, select.POLLIN)

    def send(self, words: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Say something. Raise PeerLost where nobody takes it."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()}
        listed = [[name, _name(tensor.dtype), list(tensor.shape)] for name, tensor in held.items()]
        head = json.dumps({"words": words, "tensors": listed}).encode()
        with _told():
            self._link.sendall(_LENGTH.pack(len(head)) + head)
            for tensor in held.values():
                self._link.sendall(_bytes(tensor))

    def receive(self) -> Message:
        """Return what the other end says next. Raise PeerLost where it says nothing, or only half of it."""
        with _told():
            (length,) = _LENGTH.unpack(self._read(bytearray(_LENGTH.size)))
            head = json.loads(self._read(bytearray(length)))
            tensors = {}
            for name, dtype, shape in head["tensors"]:
                tensors[name] = torch.empty(shape, dtype=_DTYPES[dtype])
                self._read(_bytes(tensors[name]))
        return Message(head["words"], tensors)

    def has_news(self, seconds: float) -> bool:
        """Wait so long at most, and say whether the other end has said something, or hung up."""
        return bool(self._news.poll(seconds * 1000))

    def close(self) -> None:
        """Hang up."""
        self._link.close()

    def _read(self, into: Any) -> Any:
        """Fill a buffer."""
        view = memoryview(into)
        while len(view):
            count = self._link.recv_into(view)
            if not count:
                raise ConnectionResetError("it hung up")
            view = view[count:]
        return into


@contextmanager
def _told() -> Iterator[None]:
    """Tell in one way that the other end is not there any more."""
    try:
        yield
    except TimeoutError as error:
        raise PeerLost("timed out") from error
    except OSError as error:
        raise PeerLost(str(error)) from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bytes(tensor: Tensor) -> Any:
    """Return the memory of a tensor, which is in one piece."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
