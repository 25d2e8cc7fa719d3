"""A teacher that runs in another process, on a device of its own."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import cast

import torch

from distill.errors import PeerLost
from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs
from teachers.messages import outputs_of, question
from teachers.wire import Message, Wire

POLL = 0.5
_NUMBER = "question"
"""Key of a batch under which the number of the question about it stands, where it was asked ahead."""


class RemoteTeacher(Teacher):
    """Asks over a wire what a teacher says, about batches to come too: it computes while the student does.

    Answers are taken off the wire by a thread: neither end may wait to be heard by the other.
    """

    def __init__(self, like: Teacher, dial: Callable[[], Wire], timeout: float) -> None:
        """Take the facts of a teacher from one that is loaded here and not kept. `dial` calls the process that runs it,
        once the training begins; one that does not answer for `timeout` seconds is lost.
        """
        self.shape = like.shape
        self.offers = like.offers
        self.fingerprint = like.fingerprint
        self.stopping = 0
        """The signal that asked the process that teaches for a stop; 0 is none."""
        self._said = like.describe()
        self._dial = dial
        self._timeout = timeout
        self._device = torch.device("cpu")
        self._wire: Wire | None = None
        self._asked = 0
        self._open: set[int] = set()
        """Questions whose answers were not used yet."""
        self._early: dict[int, Message] = {}
        self._answers: SimpleQueue[Message | PeerLost] = SimpleQueue()
        self._over = Event()
        self._listener = Thread(target=self._listen, daemon=True, name="answers")

    def ahead(self, batch: Batch, needs: Needs) -> Batch:
        """Ask about a batch that is still to come, and return it with the number of the question."""
        return cast(Batch, {**batch, _NUMBER: self._ask(batch, needs)})

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Return what the teacher says, on the device of the student. Raise PeerLost where it is gone."""
        number = cast(dict[str, int], batch).get(_NUMBER, 0)
        if number not in self._open:
            number = self._ask(batch, needs)
        self._open.remove(number)
        while number not in self._early:
            answer = self._next()
            self._early[answer.words["number"]] = answer
        found = self._early.pop(number)
        return outputs_of({name: tensor.to(self._device) for name, tensor in found.tensors.items()})

    def to(self, device: torch.device) -> None:
        """Call the process that teaches; what it says goes to a device."""
        self._device = device
        if self._wire is None:
            self._wire = self._dial()
            self._listener.start()

    def describe(self) -> str:
        """Say what it is."""
        return f"{self._said}, on a device of its own"

    def leave(self, stopped: int = 0) -> None:
        """Tell the process that teaches that this one will ask no more, or was `stopped` by a signal; wait until it has
        answered what was asked ahead, and hangs up.
        """
        if self._wire is not None:
            self._wire.send({"leaves": True, "stopped": stopped})
            self._listener.join(self._timeout)
            self.hang_up()

    def hang_up(self) -> None:
        """Leave without a word."""
        self._over.set()
        if self._wire is not None:
            self._wire.close()

    def _ask(self, batch: Batch, needs: Needs) -> int:
        if self._wire is None:
            raise RuntimeError(f"{self.describe()} is not called yet")
        self._asked += 1
        self._open.add(self._asked)
        asked = question(self._asked, batch, needs)
        self._wire.send(asked.words, asked.tensors)
        return self._asked

    def _next(self) -> Message:
        try:
            answer = self._answers.get(timeout=self._timeout)
        except Empty:
            raise PeerLost(f"{self.describe()} timed out after {self._timeout:g} s") from None
        if isinstance(answer, PeerLost):
            raise answer
        self.stopping = self.stopping or answer.words["stopping"]
        return answer

    def _listen(self) -> None:
        """Take answers off the wire until the other end hangs up; the thread of this teacher's own."""
        assert self._wire is not None
        try:
            while not self._over.is_set():
                if self._wire.has_news(POLL):
                    self._answers.put(self._wire.receive())
        except PeerLost as lost:
            self._answers.put(lost)
