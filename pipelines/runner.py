"""Walk the stages of a run, skipping what is done."""

import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from filelock import FileLock, Timeout

from configs.errors import UserError
from configs.load import Loaded
from configs.show import show
from distill.errors import Stopped
from distill.files import write_json
from pipelines.check import preflight
from pipelines.machine import facts
from pipelines.meet import meet
from pipelines.place import identity, is_helper, is_sent_back
from pipelines.report import write_report
from pipelines.run import Run
from pipelines.run_files import RunFiles
from pipelines.stage import Stage, carry_out, is_done, results_of, tidy
from pipelines.stages import stages
from teachers.in_step import told

POLL_SECONDS = 1.0
PARTING = 60.0
"""Seconds that processes whose fellows are lost need to end, once they have missed them."""


def walk(run: Run, loaded: Loaded, kinds: frozenset[str] = frozenset()) -> None:
    """Carry out the stages of a run (of the given kinds, if any are given) and write the report.

    Rank 0 of a distributed run does everything; the others help it with some stages and wait for the rest. They wait
    for its checks too: a user's error is said once.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.ranks:
        if is_helper():
            _wait(run, partial(_is_checked, run))
            run.planned = RunFiles(run.folder).record["planned"]
            _follow(run, _chosen(run, kinds))
            return
        with _locked(run):
            run.ranks.forget()
            preflight(run)
            _write_run(run, loaded)
            for stage in _chosen(run, kinds):
                _step(run, stage)
                write_report(run.folder)
            run.screen.ended(run.folder)


def join(run: Run, loaded: Loaded, kinds: frozenset[str]) -> None:
    """Carry out joint stages, of the given kinds, together with whoever else is at work in the folder: the run itself,
    or any number of processes that come and go. Raise ModelError where their teacher is still to be trained.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.ranks:
        _check_once(run, loaded)
        for stage in _chosen(run, kinds):
            _step(run, stage)


def _check_once(run: Run, loaded: Loaded) -> None:
    """Check a run; the first of those who join it does so alone: it may make what all read."""
    with FileLock(run.folder / ".join"):
        first = not (run.folder / "run.json").is_file()
        if first:
            preflight(run)
            _write_run(run, loaded)
    if not first:
        preflight(run)


def _step(run: Run, stage: Stage[Any]) -> None:
    if _was_done(run, stage):
        tidy(stage, run.folder)  # it may have been cut as soon as it was marked
        run.screen.skipped(stage, results_of(stage.folder(run.folder)))
        return
    run.screen.started(stage)
    run.screen.finished(stage, carry_out(stage, run.folder))


def _follow(run: Run, chosen: Iterable[Stage[Any]]) -> None:
    """Help rank 0 with each stage, and wait for its mark, which it writes last."""
    for stage in chosen:
        if not _was_done(run, stage):
            stage.help(stage.folder(run.folder))
        _wait(run, partial(is_done, stage, run.folder))


def _was_done(run: Run, stage: Stage[Any]) -> bool:
    """Whether a stage is done before it begins; of one that ranks carry out at the same time, all say what rank 0 says:
    another job may be about to mark it.
    """
    done = is_done(stage, run.folder)
    if not stage.in_step:
        return done
    meet(run)
    return bool(told(int(done)))


def _is_checked(run: Run) -> bool:
    """Whether rank 0 of this very start has found nothing wrong."""
    return RunFiles(run.folder).record.get("launch") == identity()


def _wait(run: Run, ready: Callable[[], bool]) -> None:
    """Wait for rank 0. Raise RankError where it will not go on, Stopped where it was asked to stop: the signal may have
    reached its host alone.
    """
    while True:
        left = run.ranks.is_left()  # before the question: what it did until then counts
        if ready():
            return
        if left:
            raise Stopped(signal.SIGTERM)
        time.sleep(POLL_SECONDS)
        run.ranks.look()


def _chosen(run: Run, kinds: frozenset[str]) -> Iterable[Stage[Any]]:
    return (stage for stage in stages(run) if not kinds or stage.kind in kinds)


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Keep a second run out of the same folder. Raise UserError where one is at work; a job that comes back waits until
    what it was before has missed the others.
    """
    lock, since = FileLock(run.folder / ".lock"), time.monotonic()
    patience = run.config.machine.timeout + PARTING if is_sent_back() else 0.0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if time.monotonic() - since >= patience:
                raise UserError(
                    f"{run.folder}: another run is at work in this folder; give `output=…` another one, or help that "
                    "run to write its texts: `distill generate`"
                ) from None
            run.ranks.look()
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _write_run(run: Run, loaded: Loaded) -> None:
    """Write down what is run where, so that the report can tell."""
    record: dict[str, Any] = {
        "name": loaded.name,
        "about": run.config.about,
        "expect": run.config.expect,
        "command": shlex.join(["distill", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": show(loaded),
        "launch": identity(),
        "planned": run.planned,
        **facts(run.device),
    }
    write_json(run.folder / "run.json", record)
