import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from socket import socket
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from configs.errors import UserError
from distill.errors import PeerLost, Stopped
from distill.exit_codes import STOPPED
from distill.signals import SIGNALS, stoppable
from pipelines import ranks as module
from pipelines import runner
from pipelines.blame import Word
from pipelines.neighbours import Neighbours
from pipelines.processes import space
from pipelines.ranks import Ranks
from pipelines.run_files import read_json

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
NO_ROOM = "No space left on device; make room, and the same command goes on"


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Give the signals back that a rank takes when it fails: its process would end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ranks(tmp_path, monkeypatch) -> Ranks:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    made = Ranks(tmp_path, timeout=8)
    made._folder.mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:1] Connection closed by peer [::1]:1"), "lost", "gone"),
        (
            RuntimeError("[gloo/transport/tcp/buffer.cc:81] Timed out waiting 8000ms for recv"),
            "lost",
            "timeout",
        ),
        (RuntimeError("Application timeout caused pair closure"), "lost", "timeout"),
        (PeerLost("it hung up"), "lost", "gone"),
        (PeerLost("rank 1, which teaches, timed out after 8 s"), "lost", "unanswered"),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), "lost", "gone"),
        (RuntimeError("boom\nmore"), "failed", "RuntimeError: boom"),
        (UserError("no such file"), "refused", "no such file"),
        (OSError(28, "No space left on device", "a.csv"), "refused", f"a.csv: {NO_ROOM}"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "refused", f"a file of the run: {NO_ROOM}"),
        (dist.DistBackendError("/dev/shm/nccl-1: No space left on device (28)"), "lost", "gone"),
    ],
)
def test_an_error_of_others_is_told_from_an_own_one(tmp_path, ranks, error, state, reason):
    ranks.fail(error)
    (said,) = [read_json(path) for path in tmp_path.rglob("fault-00001.json")]
    assert (said["state"], said["reason"]) == (state, reason)


class Left(Exception):
    """The process would have ended here."""


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (UserError("no such file"), "error: no such file\n", 2),
        (OSError(28, "No space left on device"), f"error: a file of the run: {NO_ROOM}\n", 2),
        (RuntimeError("boom"), "RuntimeError: boom\n", 1),
    ],
)
def test_a_process_that_is_torn_down_for_too_long_has_said_why(ranks, monkeypatch, capsys, error, said, code):
    """Its main thread, which would say it, does not get that far."""

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(module.os, "_exit", leave)
    ranks.fail(error)
    with pytest.raises(Left) as left:
        ranks._leave()
    told = capsys.readouterr().err
    assert left.value.args == (code,) and said in told and told.count("error:") == 1
    assert told.count("RuntimeError: boom\n") == int(code == 1)  # the end of its traceback


def _beat(ranks: Ranks, state: str, **given: object) -> None:
    """Have rank 0 say how it goes."""
    word = {"rank": 0, "world": 2, "node": 0, "host": platform.node(), "step": 0, "state": state, **given}
    ranks._path("beat", 0).write_text(json.dumps(word), encoding="utf-8")


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)


def test_nobody_waits_for_a_main_process_that_was_stopped(ranks, quick):
    asked = []

    def ready() -> bool:
        asked.append(0)
        _beat(ranks, "works" if len(asked) < 3 else "ended")
        return False

    with ranks, pytest.raises(Stopped) as stopped:
        runner._wait(SimpleNamespace(ranks=ranks), ready)
    assert stopped.value.signal == signal.SIGTERM and len(asked) >= 3


def test_a_process_that_is_stopped_while_it_enters_says_that_it_ended(ranks, monkeypatch):
    """The others have seen it by then, and would take it for killed."""
    monkeypatch.setattr(module.threading.Thread, "start", lambda thread: signal.raise_signal(signal.SIGTERM))
    with stoppable(), pytest.raises(Stopped), ranks:
        pytest.fail("it was not stopped")
    said = read_json(ranks._path("beat", 1))
    assert (said["state"], said["reason"]) == ("ended", "stopped")


def test_what_the_main_process_did_before_it_ended_counts(ranks, quick):
    answers = iter([False, True])

    def ready() -> bool:
        _beat(ranks, "ended")
        return next(answers)

    with ranks:
        runner._wait(SimpleNamespace(ranks=ranks), ready)


def test_the_end_of_an_earlier_start_under_the_same_name_is_passed_over(ranks):
    _beat(ranks, "ended")
    with ranks:
        assert not ranks.is_left()
        time.sleep(0.01)
        _beat(ranks, "ended")
        assert ranks.is_left()


@pytest.mark.parametrize(("reason", "follows"), [("stopped", True), ("", False)])
def test_who_hears_no_signal_follows_a_main_process_that_was_stopped(ranks, monkeypatch, reason, follows):
    monkeypatch.setattr(module, "LEFT", 0.5)
    with nullcontext() if not follows else pytest.raises(Stopped), stoppable(), ranks:
        _beat(ranks, "ended", reason=reason)
        time.sleep(4 * module.POLL)


def test_the_main_process_follows_any_other(ranks, monkeypatch):
    monkeypatch.setattr(module, "LEFT", 0.5)
    monkeypatch.setenv("RANK", "0")
    main = Ranks(ranks._run, timeout=8)
    with pytest.raises(Stopped), stoppable(), main:
        word = {"rank": 1, "world": 2, "node": 0, "host": "h", "step": 0, "state": "ended", "reason": "stopped"}
        main._path("beat", 1).write_text(json.dumps(word), encoding="utf-8")
        time.sleep(4 * module.POLL)


def test_who_joined_is_heard_although_a_run_that_began_beside_it_dropped_what_it_had_said(ranks, monkeypatch):
    with ranks:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another start")
        Ranks(ranks._run, timeout=8).forget()
        assert not ranks.folder.exists()
        ranks.fail(RuntimeError("boom"))
        assert read_json(ranks._path("fault", 1))["reason"] == "RuntimeError: boom"


DEAF = """
import sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from distill.signals import stoppable
from pipelines import ranks
ranks.LEFT = 1.0
with stoppable(), ranks.Ranks(Path(sys.argv[1]), timeout=600):
    print("there", flush=True)
    dist.TCPStore("127.0.0.1", int(sys.argv[2]), 2, False, timedelta(seconds=600))
"""


def test_who_waits_for_others_where_no_signal_is_heard_ends_as_one_that_was_stopped(tmp_path, ranks):
    """torch's store tries again and again, within one call."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        command = [sys.executable, "-c", DEAF, str(tmp_path), str(probe.getsockname()[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as deaf:
            assert deaf.stdout is not None and deaf.stdout.readline() == "there\n"
            time.sleep(1)  # until it is inside that call
            deaf.send_signal(signal.SIGUSR1)
            time.sleep(1)
            heard = deaf.poll()
            _beat(ranks, "ended", reason="stopped")
            ended = deaf.wait(timeout=30)
        assert heard is None and ended == STOPPED


@pytest.fixture
def sleeper() -> "Iterator[subprocess.Popen[bytes]]":
    """Another process, whose death nobody takes note of."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_neighbour_that_is_killed_is_missed_though_nothing_waits_for_it(tmp_path, ranks, sleeper, monkeypatch):
    _beat(ranks, "works", process=sleeper.pid, space=space())
    monkeypatch.setattr(ranks, "_leave", lambda: None)
    with pytest.raises(module.RankError), ranks:
        time.sleep(3 * module.POLL)
        assert not list(tmp_path.rglob("fault-*.json"))
        sleeper.kill()
        until = time.monotonic() + 30
        while not (found := list(tmp_path.rglob("fault-00001.json"))) and time.monotonic() < until:
            time.sleep(0.1)
        said = read_json(found[0])
        assert (said["state"], said["reason"]) == ("lost", "gone")
        raise module.RankError("")


@pytest.mark.parametrize(
    ("after", "missed"),
    [
        ({}, True),
        ({"state": "ended"}, False),
        ({"process": os.getpid()}, False),
    ],
)
def test_only_who_died_without_a_word_is_missed(sleeper, after, missed):
    word = {"rank": 0, "world": 2, "node": 0, "host": platform.node(), "step": 0, "state": "works"}
    word |= {"process": sleeper.pid, "space": space()}
    neighbours = Neighbours(1, 2, lambda rank: Word(**word))
    assert not neighbours.missing()
    sleeper.kill()
    word |= after
    sleeper.wait()
    assert [neighbours.missing() for _ in range(4)] == [False, missed, missed, missed]


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"space": "pid:[1]"}, {"process": 2**22 + 1}])
def test_processes_elsewhere_or_of_an_earlier_start_are_no_neighbours(elsewhere):
    word = {"rank": 0, "world": 2, "node": 0, "host": platform.node(), "step": 0, "state": "works"}
    word |= {"process": os.getpid(), "space": space(), **elsewhere}
    neighbours = Neighbours(1, 2, lambda rank: Word(**word))
    assert not any(neighbours.missing() for _ in range(3)) and not neighbours._numbers


def test_a_checkpoint_that_goes_while_one_looks_ends_no_watch(tmp_path):
    saved = tmp_path / "a/checkpoints/x"
    saved.mkdir(parents=True)
    (saved / "step-3.ckpt").symlink_to(tmp_path / "gone")
    assert module._goes_on(tmp_path) == "the same command goes on from step 3 of a"
