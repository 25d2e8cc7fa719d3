"""What the processes of one start tell each other: who is there, and who failed, of what.

They meet in the run's folder, which all of them see anyway: a process that is cut off from the others, or whose main
thread hangs, can still write there. Nothing but words for people comes of it: no result depends on these files.
"""

import os
import platform
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType

from distill.errors import RankError, Stopped
from distill.exit_codes import FAILED, REFUSED, STOPPED
from distill.files import digest
from distill.peers import how, is_of_others
from distill.signals import SIGNALS
from pipelines import collectives
from pipelines.blame import Word, blame
from pipelines.causes import for_user
from pipelines.neighbours import Neighbours
from pipelines.place import here, identity, is_started_by_us
from pipelines.processes import space
from pipelines.stillness import Stillness
from pipelines.word_files import changed, read, write

GRACE = 3.0
"""Seconds the others have to say what became of them; and a collective to end, before who is in it seems to hang."""
POLL = 0.5
LEFT = 15.0
"""Seconds after which a process follows one that was stopped in order, and as many more until it is ended: its main
thread may be where it hears no signal, as while processes look for each other."""
_STOPPED = "stopped"


class Ranks:
    """Watches over a run of several processes; of one alone it takes no notice."""

    def __init__(self, run: Path, timeout: float) -> None:
        """Meet in a run's folder; whose main process says nothing for `timeout` seconds is lost."""
        self.step = 0
        """The optimiser step this process is in; 0 outside of trainings."""
        self._run = run
        self._folder = meeting_point(run)
        self._timeout = timeout
        self._place = here()
        self._fault: Word | None = None
        self._faulted = self._alarmed = 0.0
        self._old: set[tuple[str, int]] = set()
        self._old_beats: dict[int, int] = {}
        self._follows: float | None = None
        self._asked = False
        self._beats: dict[int, tuple[int, float]] = {}
        self._begun: tuple[dict[str, int], float] = ({}, 0.0)
        """The collectives this process has begun, and since when there are no more."""
        self._over = threading.Event()
        self._main = threading.get_ident()
        self._stillness = Stillness(self._main, timeout + GRACE)

    def __enter__(self) -> None:
        """Say that this process is there, and begin to watch the others."""
        if self._place is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path("fault", self._place.rank).unlink(missing_ok=True)
        self._old = set(self._found())  # of an earlier start under the same name
        self._old_beats = {rank: changed(self._path("beat", rank)) for rank in range(self._place.world)}
        try:
            self._beat("works")
            threading.Thread(target=self._watch, daemon=True, name="ranks").start()
        except BaseException as error:  # a stop at this moment: the others know of this process, so it says how it ends
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others how this process ends. Raise RankError, in the words of all, for what one of them did."""
        if self._place is None:
            return
        if error is None or isinstance(error, Stopped | KeyboardInterrupt):
            self._over.set()
            self._beat("ended", _STOPPED if error is not None else "")
            return
        self.fail(error)
        refused = bool(for_user(error))
        for number in SIGNALS:  # whoever starts the processes may now end them: first it is told why
            signal.signal(number, signal.SIG_IGN)
        if not (refused and self._place.rank == 0):
            self._hear_all()
        self._over.set()
        if refused and self._tells():
            return
        raise RankError(*self._verdict()) from None

    def _hear_all(self) -> None:
        """Give the others the time to say what became of them; no more of it than they take."""
        assert self._place is not None
        last = time.monotonic() + GRACE
        while time.monotonic() < last and sum(found not in self._old for found in self._found()) < self._place.world:
            time.sleep(POLL / 2)

    def fail(self, error: BaseException) -> None:
        """Tell the others at once that this process will not go on, and why."""
        if self._place is None or self._fault is not None or isinstance(error, Stopped | KeyboardInterrupt):
            return
        if reason := for_user(error):
            self._publish("refused", reason)
        elif isinstance(error, RankError):
            self._publish("lost", "")
        elif is_of_others(error):
            self._publish("lost", how(error))
        else:
            traceback.print_exception(error)  # now: the process may not outlive the end of its training
            self._publish("failed", f"{type(error).__name__}: {error}".splitlines()[0])

    @property
    def folder(self) -> Path:
        """Where the processes of this start meet."""
        return self._folder

    def look(self) -> None:
        """Raise RankError where another process will not go on: whoever waits for it waits in vain."""
        self._stillness.moved()
        if self._alarmed or self._fault is not None:
            raise RankError("")

    def is_left(self) -> bool:
        """Whether the main process went away in order: what it has not done by now, it was stopped before."""
        return self._end_of(0) is not None

    def forget(self) -> None:
        """Drop what processes of earlier starts said; only the main process of a locked run may."""
        for old in self._folder.parent.glob("*"):
            if old != self._folder:
                shutil.rmtree(old, ignore_errors=True)

    def _watch(self) -> None:
        """Look out for faults of others, and for a main process that stays away; the thread of this process's own."""
        assert self._place is not None
        beaten, pause = time.monotonic(), max(1.0, self._timeout / 20)
        followed = beaten
        neighbours = Neighbours(self._place.rank, self._place.world, lambda rank: read(self._path("beat", rank)))
        while not self._over.wait(POLL):
            now = time.monotonic()
            if now - beaten > pause:
                self._beat("works")
                self._listen(now)
                beaten = now
            if now - followed > LEFT / 5:
                self._follow(now)
                followed = now
            if not self._alarmed and any(found not in self._old for found in self._found()):
                self._alarmed = now
            if not self._alarmed and self._fault is None and neighbours.missing():
                self._publish("lost", "gone")
            if self._fault is None and self._stalls(now) and self._waits():
                self._publish("lost", "timeout")
            missed = self._alarmed and now - self._alarmed > GRACE / 2
            if self._fault is None and (missed or self._stillness.lasts(now)):
                at = _position(sys._current_frames().get(self._main))
                self._publish(*("lost", "timeout") if self._waits() else ("hangs", at))
            if self._fault is not None and now - self._faulted > 2 * GRACE:
                self._leave()

    def _stalls(self, now: float) -> bool:
        """Whether this process has begun nothing with others for longer than it may take."""
        begun = collectives.begun()
        if begun != self._begun[0]:
            self._begun = (begun, now)
        return bool(begun) and now - self._begun[1] > self._timeout

    def _waits(self) -> bool:
        """Whether another process has still to begin what this one has."""
        assert self._place is not None
        begun = collectives.begun()
        others = (read(self._path("beat", rank)) for rank in range(self._place.world) if rank != self._place.rank)
        return any(word and word.state == "works" and collectives.is_behind(word.begun, begun) for word in others)

    def _listen(self, now: float) -> None:
        """Miss who has not been heard of for too long: rank 0 watches all, the others rank 0."""
        assert self._place is not None
        for rank in range(self._place.world) if self._place.rank == 0 else (0,):
            path = self._path("beat", rank)
            heard = changed(path)
            if self._beats.setdefault(rank, (heard, now))[0] != heard:
                self._beats[rank] = (heard, now)
            quiet = now - self._beats[rank][1] > self._timeout + GRACE
            if quiet and self._fault is None and (word := read(path)) is not None and word.state != "ended":
                self._publish("lost", "timeout")

    def _follow(self, now: float) -> None:
        """Stop where another process was stopped in order: rank 0 looks at all, the others at rank 0."""
        assert self._place is not None
        if self._follows is None:
            ends = map(self._end_of, range(1, self._place.world) if self._place.rank == 0 else (0,))
            self._follows = now if any(end is not None and end.reason == _STOPPED for end in ends) else None
        waited = 0.0 if self._follows is None else now - self._follows
        if waited > 2 * LEFT:
            os._exit(STOPPED)
        if waited > LEFT and not self._asked:
            self._asked = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _end_of(self, rank: int) -> Word | None:
        """Return how a process of this start went away in order; none if it did not."""
        path = self._path("beat", rank)
        word = read(path) if self._place is not None else None
        is_new = word is not None and changed(path) != self._old_beats.get(rank, 0)
        return word if word is not None and word.state == "ended" and is_new else None

    def _leave(self) -> None:
        """End a process whose main thread does not: it hangs, or waits for others while it is torn down."""
        assert self._fault is not None
        message, code = self._verdict()
        if self._fault.state == "refused" and self._tells():
            message = self._fault.reason
        if message:
            print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(code)

    def _verdict(self) -> tuple[str, int]:
        states = {word.state for word in self._words()}
        code = REFUSED if "refused" in states and "failed" not in states else FAILED
        if code == REFUSED or is_started_by_us() or not self._tells():
            return "", code
        return told(self._run, self._folder, self._timeout), code

    def _tells(self) -> bool:
        """Whether it falls to this process to say what happened: once on each terminal. Each torchrun has its own."""
        assert self._place is not None and self._fault is not None
        apart = self._place.launcher == "torchrun" and not is_started_by_us()
        heard = [word for word in self._words() if word.node == self._place.host or not apart]
        first = min(heard, key=lambda word: (word.state not in ("failed", "refused"), word.rank), default=self._fault)
        return first.rank == self._place.rank

    def _words(self) -> list[Word]:
        found = (read(self._folder / name) for name, when in self._found() if (name, when) not in self._old)
        return [word for word in found if word is not None]

    def _found(self) -> list[tuple[str, int]]:
        try:
            return [(path.name, changed(path)) for path in self._folder.glob("fault-*.json")]
        except OSError:  # a disk of several hosts that hangs up for a moment: the next look sees what this did not
            return []

    def _publish(self, state: str, reason: str) -> None:
        self._fault, self._faulted = replace(self._word(state), reason=reason), time.monotonic()
        write(self._path("fault", self._fault.rank), self._fault)

    def _beat(self, state: str, reason: str = "") -> None:
        word = replace(self._word(state), reason=reason)
        write(self._path("beat", word.rank), word)

    def _word(self, state: str) -> Word:
        assert self._place is not None
        mine = (self._place.rank, self._place.world, self._place.host, platform.node(), self.step, state)
        return Word(*mine, process=os.getpid(), space=space(), begun=collectives.begun())

    def _path(self, kind: str, rank: int) -> Path:
        return self._folder / f"{kind}-{rank:05}.json"


def meeting_point(run: Path) -> Path:
    """Return where the processes of this start meet."""
    return run / ".ranks" / digest(identity())


def told(run: Path, folder: Path, timeout: float, exits: dict[int, str] | None = None) -> str:
    """Return, in one sentence, who is to blame for the end of a run and how to go on; `exits` is what a launcher saw
    of processes that could not say anything themselves.
    """
    faults, beats = ([read(path) for path in sorted(folder.glob(f"{kind}-*.json"))] for kind in ("fault", "beat"))
    said = blame([word for word in faults if word], [word for word in beats if word], timeout, exits or {})
    return f"{said}; {_goes_on(run)}"


def _goes_on(run: Path) -> str:
    try:
        saved = list(run.glob("**/checkpoints/*/step-*"))
    except OSError:  # a training that is done removes its folder
        saved = []
    if not saved:
        return "the same command starts the stage again"
    newest = max(saved, key=changed)
    stage = newest.parents[2].relative_to(run)
    return f"the same command goes on from step {newest.stem.removeprefix('step-')} of {stage}"


def _position(frame: FrameType | None) -> str:
    if frame is None:
        return "?"
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}, in {frame.f_code.co_name}"
