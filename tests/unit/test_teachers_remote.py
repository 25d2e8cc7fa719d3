"""A teacher in another process says what it would say here, and neither end waits for one that is gone."""

import socket
import threading
import time
from contextlib import suppress

import pytest
import torch

from distill.errors import PeerLost, Stopped
from distill.types import Needs, Outputs
from pipelines import meeting
from pipelines.meeting import Meeting
from pipelines.ranks import Ranks
from pipelines.serve import Server
from pipelines.stage_teacher import asking
from teachers.live import LiveTeacher
from teachers.messages import batch_of, needs_of, outputs_of, question, tensors_of
from teachers.most_likely import MostLikely
from teachers.remote import RemoteTeacher
from teachers.wire import Message, Wire
from tests.helpers import families

CPU = torch.device("cpu")
TIMEOUT = 5.0


def _live(kind="bert"):
    return LiveTeacher(families.loaded(kind), families.task_of(kind), "x")


def _batch(kind="bert", seed=0, step=0):
    return {**families.batch(kind, seed), "window_counts": {}, "progress": 0.0, "step": step}


@pytest.fixture
def wires():
    """Return what makes both ends of a wire."""
    made: list[Wire] = []

    def both():
        with socket.create_server(("127.0.0.1", 0)) as door:
            ends = [socket.create_connection(door.getsockname()), door.accept()[0]]
        for end in ends:  # little is under way before an end has to wait for the other
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            made.append(Wire(end, TIMEOUT))
        return made[-2:]

    yield both
    for wire in made:
        wire.close()


def _compare(found: Outputs, expected: Outputs) -> int:
    """See that outputs are the same to the bit; return how many tensors they have."""
    ours, theirs = tensors_of(found), tensors_of(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    return len(ours)


def _serving(server_end, teacher, autocast=None):
    """Answer in this thread what `ask` asks in another; return what `ask` returned, or raise what it raised."""

    def run(ask):
        found = []

        def asked():
            try:
                found.append(ask())
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=asked)
        thread.start()
        try:
            Server(teacher, CPU, autocast, Ranks(meeting.Path("/nowhere"), TIMEOUT)).serve([server_end])
        finally:
            thread.join(TIMEOUT)
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    return run


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_all_that_a_teacher_offers_comes_over_the_wire_to_the_bit(wires, kind):
    live, (here, there) = _live(kind), wires()
    remote = RemoteTeacher(live, lambda: here, TIMEOUT)
    assert (remote.shape, remote.offers, remote.fingerprint) == (live.shape, live.offers, live.fingerprint)
    needs = live.offers - Needs(choices=True)

    def ask():
        remote.to(CPU)
        with asking(remote):
            return remote(_batch(kind), needs)

    found = _serving(there, live)(ask)
    assert _compare(found, live(_batch(kind), needs)) > 8


def test_types_empty_tensors_and_single_numbers_arrive(wires):
    here, there = wires()
    given = {
        "half": torch.randn(3, 2).bfloat16().t(),
        "none": torch.zeros(0, 4),
        "one": torch.tensor(7),
        "yes": torch.tensor([True, False]),
    }
    here.send({"a": [1, "ü"]}, given)
    said = there.receive()
    assert said.words == {"a": [1, "ü"]} and said.tensors.keys() == given.keys()
    assert all(torch.equal(said.tensors[name], value) for name, value in given.items())
    assert all(said.tensors[name].dtype == value.dtype for name, value in given.items())


def test_wrong_answers_are_asked_about_where_they_are_needed():
    choices = {"input_ids": torch.ones(2, 3, dtype=torch.int64), "rows": torch.tensor([0, 2])}
    batch = {**_batch("gpt2", step=4), "choices": choices}
    asked = question(3, batch, Needs(logits=True, choices=True))
    arrived = batch_of(Message(asked.words, asked.tensors), CPU)
    assert arrived["step"] == 4 and torch.equal(arrived["choices"]["rows"], choices["rows"])
    assert needs_of(asked) == Needs(logits=True, choices=True)
    assert "choices" not in batch_of(question(3, batch, Needs(logits=True)), CPU)
    said = Outputs(logits=torch.ones(1), choices=torch.zeros(2, 3))
    assert _compare(outputs_of(tensors_of(said)), said) == 2


def test_answers_to_what_was_asked_ahead_are_told_from_others(wires):
    """A check before the training asks too, and one batch may be asked about again when its answer was used."""
    live, (here, there) = _live(), wires()
    remote, needs = RemoteTeacher(live, lambda: here, TIMEOUT), Needs(logits=True)

    def ask():
        remote.to(CPU)
        with asking(remote):
            first, second = (remote.ahead(_batch(seed=seed), needs) for seed in (1, 2))
            said = [remote(_batch(seed=3), needs), *(remote(batch, needs) for batch in (second, first, second))]
            remote.ahead(_batch(seed=4), needs)  # is never used: the training ends before
            return said

    said = _serving(there, live)(ask)
    for found, seed in zip(said, (3, 2, 1, 2), strict=True):
        _compare(found, live(_batch(seed=seed), needs))


def test_an_answer_larger_than_what_is_under_way_blocks_no_question(wires):
    """Both ends would wait for the other to listen, if the one that asks did not listen at all times."""
    live, (here, there) = _live(), wires()
    remote, needs = RemoteTeacher(live, lambda: here, TIMEOUT), live.offers
    large = {name: value.repeat(400, 1) if value.ndim > 1 else value for name, value in families.batch("bert").items()}

    def ask():
        remote.to(CPU)
        with asking(remote):
            asked = [remote.ahead({**_batch(), **large}, needs) for _ in range(4)]
            return [remote(batch, needs) for batch in asked][-1]

    found = _serving(there, live)(ask)
    assert found.hidden_states[0].shape[0] == 1200


def test_products_are_computed_in_the_type_of_the_training(wires):
    live, (here, there) = _live(), wires()
    remote, needs = RemoteTeacher(live, lambda: here, TIMEOUT), Needs(hidden_states=frozenset({1}))

    def ask():
        remote.to(CPU)
        with asking(remote):
            return remote(_batch(), needs)

    found = _serving(there, live, torch.bfloat16)(ask)
    with torch.autocast("cpu", torch.bfloat16):
        expected = live(_batch(), needs)
    assert _compare(found, expected) == 1
    assert not torch.equal(expected.hidden_states[1], live(_batch(), needs).hidden_states[1])


def test_the_likeliest_outputs_are_those_of_all(wires):
    live = _live("gpt2")
    cut, (here, there) = MostLikely(live, 4), wires()
    remote = RemoteTeacher(cut, lambda: here, TIMEOUT)
    assert remote.shape.kept == 4 and remote.fingerprint != live.fingerprint

    def ask():
        remote.to(CPU)
        with asking(remote):
            return remote(_batch("gpt2"), Needs(logits=True))

    found = _serving(there, cut)(ask)
    here = _batch("gpt2")["labels"] != -100
    expected = live(_batch("gpt2"), Needs(logits=True)).logits.log_softmax(-1)
    assert found.logits is None and found.top_k.indices.dtype == torch.int64
    torch.testing.assert_close(found.top_k.log_probs[here], expected[here].topk(4).values)
    torch.testing.assert_close(expected.gather(-1, found.top_k.indices)[here], found.top_k.log_probs[here])


def test_a_stop_is_told_in_order(wires):
    live, (here, there) = _live(), wires()
    remote = RemoteTeacher(live, lambda: here, TIMEOUT)

    def ask():
        remote.to(CPU)
        with suppress(Stopped), asking(remote):
            remote(_batch(), Needs(logits=True))
            remote.ahead(_batch(), Needs(logits=True))
            raise Stopped(15, 3)

    with pytest.raises(Stopped) as caught:
        _serving(there, live)(ask)
    assert caught.value.signal == 15


def test_who_fails_hangs_up_and_the_teacher_does_not_wait(wires):
    live, (here, there) = _live(), wires()
    remote = RemoteTeacher(live, lambda: here, TIMEOUT)

    def ask():
        remote.to(CPU)
        with asking(remote):
            raise RuntimeError("boom")

    with pytest.raises(PeerLost, match="hung up"):
        _serving(there, live)(ask)


def test_a_teacher_that_is_gone_or_silent_is_an_error(wires):
    for timeout, gone, said in ((TIMEOUT, True, "hung up|reset|Broken pipe"), (0.3, False, "timed out after 0.3 s")):
        here, there = wires()
        remote = RemoteTeacher(_live(), lambda here=here: here, timeout)
        remote.to(CPU)
        batch = remote.ahead(_batch(), Needs(logits=True))
        if gone:
            there.close()
        with pytest.raises(PeerLost, match=said):
            remote(batch, Needs(logits=True))
        remote.hang_up()
        there.close()


def test_processes_find_each_other_once(tmp_path, monkeypatch):
    """A file of a start before, and callers that do not know the secret, are no hindrance."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    ranks = Ranks(tmp_path, TIMEOUT)
    met = Meeting(ranks, "name", TIMEOUT)
    ranks.folder.mkdir(parents=True)
    meeting.write_json(met._path(2), {"host": "127.0.0.1", "port": 9, "secret": "old"})
    dialled = {}
    callers = [threading.Thread(target=lambda rank=rank: dialled.update({rank: met.dial(2, rank)})) for rank in (0, 1)]
    for thread in callers:
        thread.start()
    stranger = threading.Thread(target=_call_without_secret, args=(met,))
    stranger.start()
    first, second = met.welcome(2, [0, 1])
    for thread in (*callers, stranger):
        thread.join(TIMEOUT)
    assert not met._path(2).exists()
    first.send({"to": 0})
    second.send({"to": 1})
    assert [dialled[rank].receive().words["to"] for rank in (0, 1)] == [0, 1]
    for wire in (first, second, *dialled.values()):
        wire.close()


def _call_without_secret(met: Meeting) -> None:
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        address = meeting.read_json(met._path(2))
        with suppress(OSError, PeerLost):
            wire = Wire(socket.create_connection((address["host"], address["port"]), 1), TIMEOUT)
            wire.send({"secret": "guessed", "rank": 0})
            with pytest.raises(PeerLost):
                wire.receive()
            wire.close()
            return
        time.sleep(0.01)


def test_nobody_there_is_an_error_in_time(tmp_path):
    with pytest.raises(PeerLost, match=r"rank 3, which teaches, timed out after 0\.3 s"):
        Meeting(Ranks(tmp_path, 0.3), "name", 0.3).dial(3, 0)
