"""What a process does that only teaches: it answers those that train until all of them have left."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from distill.errors import Stopped
from distill.protocols import Teacher
from distill.signals import Remembered
from pipelines.ranks import Ranks
from teachers.messages import batch_of, needs_of, tensors_of
from teachers.wire import Message, Wire

POLL = 0.5


class Server:
    """Runs a teacher for the processes at the other ends of wires, one question of each in turn.

    They ask equally often: each trains as many micro-batches as the others.
    """

    def __init__(self, teacher: Teacher, device: torch.device, autocast: torch.dtype | None, ranks: Ranks) -> None:
        """Take a teacher that lies on a device; `autocast` is the type that the training computes products in, if not
        its own.
        """
        self._teacher = teacher
        self._device = device
        self._autocast = autocast
        self._ranks = ranks
        self._signal = Remembered()

    def serve(self, wires: Sequence[Wire]) -> None:
        """Answer until all have left. Raise Stopped where they were stopped, and PeerLost where one hangs up without a
        word.
        """
        stopped, present = 0, list(wires)
        with ExitStack() as stack, self._signal.listening():
            for wire in wires:
                stack.callback(wire.close)
            while present:
                for wire in tuple(present):
                    said = self._next(wire)
                    if "leaves" in said.words:
                        stopped = stopped or said.words["stopped"]
                        present.remove(wire)
                        wire.close()
                        self._ranks.step = 0
                    else:
                        self._answer(said, wire)
        if number := stopped or self._signal.number:
            raise Stopped(number)

    def _next(self, wire: Wire) -> Message:
        """Wait for a process to say something, however long it is busy otherwise, and look out for all."""
        while not wire.has_news(POLL):
            self._ranks.look()
        return wire.receive()

    def _answer(self, asked: Message, wire: Wire) -> None:
        self._ranks.step = asked.words["step"] + 1
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            outputs = self._teacher(batch_of(asked, self._device), needs_of(asked))
        wire.send({"number": asked.words["number"], "stopping": self._signal.number}, tensors_of(outputs))
