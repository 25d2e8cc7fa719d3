"""A live line on the terminal, or a plain line now and then where there is none."""

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from distill.callbacks.log import Report


class ProgressLine:
    """Shows a training's state: a bar on a terminal; elsewhere (a log file) a line every tenth of the way."""

    def __init__(self, console: Console, title: str, unit: str = "steps") -> None:
        """Write to `console` under a title."""
        self._console = console
        self._title = title
        self._unit = unit
        self._tenth = -1
        self._first: tuple[float, int] | None = None
        self._bar = Progress(
            TextColumn("  {task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[state]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, state="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def report(self, report: Report) -> None:
        """Show a training's state."""
        losses = "  ".join(f"{name} {value:.4g}" for name, value in report.losses.items())
        state = f"{losses}  {report.examples_per_second:,.0f} rows/s"
        self.advance(report.step, report.steps, state)

    def advance(self, done: int, total: int, state: str = "") -> None:
        """Show that `done` of `total` is done."""
        self._bar.update(self._task, completed=done, total=total, state=state)
        tenth = 10 * done // max(total, 1)
        if not self._console.is_terminal and tenth != self._tenth:
            self._tenth = tenth
            left = self._left(done, total)
            self._console.print(f"  {self._title}: {done}/{total} {self._unit}{left}  {state}", highlight=False)

    def _left(self, done: int, total: int) -> str:
        """Say how long the rest takes at the pace since the first word."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        began, first = self._first
        if done in (first, total):
            return ""
        return f", {timedelta(seconds=round((now - began) * (total - done) / (done - first)))} left"

    def counter(self, total: int) -> Callable[[str, int], None]:
        """Return what shows, when it is called with a state and a number, that so many more of `total` are done."""
        done = 0

        def count(state: str, more: int) -> None:
            nonlocal done
            done += more
            self.advance(done, total, state)

        return count
