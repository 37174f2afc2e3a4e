"""What a long command tells its user while it works.

Three nested levels (plan, run, epoch or attack) with the time left in a terminal; plain lines with
the time and the time left when the output goes elsewhere: one an epoch. The same lines can be
copied to a run's log. No logic depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Level = Literal["plan", "run", "part"]


def in_words(seconds: float) -> str:
    """A duration in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Reporter:
    """Progress bars in a terminal, plain lines elsewhere.

    Args:
        console: where to print; `None` prints nothing (the Python interface).
        interval: without a terminal, seconds between two lines about the same piece of work.
        watch: called whenever a run, an epoch or an attack has begun or ended.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        interval: float = 300.0,
        watch: Callable[[], None] | None = None,
    ) -> None:
        self._console = console
        self._interval = interval
        self._watch = watch
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._parts: dict[str, tuple[str, float, float]] = {}
        self._began: dict[str, tuple[float, float]] = {}
        self._alike: dict[str, bool] = {}
        self._last_line = time.monotonic()
        self._sinks: list[Callable[[str], None]] = []

    def __enter__(self) -> Reporter:
        if self._console is not None and self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pause()

    def pause(self) -> None:
        """Take the bars away, so that other output can follow."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    @contextmanager
    def copy_to(self, sink: Callable[[str], None]) -> Iterator[None]:
        """Also send every line to `sink` while the block runs."""
        self._sinks.append(sink)
        try:
            yield
        finally:
            self._sinks.remove(sink)

    def line(self, text: str) -> None:
        """Print one line, and copy it to the sinks."""
        for sink in self._sinks:
            sink(text)
        if self._console is not None:
            stamp = "" if self._console.is_terminal else self._stamp()
            self._console.print(f"{stamp}{text}", highlight=False, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()

    def begin(
        self, level: Level, text: str, total: float, done: float = 0.0, *, alike: bool = True
    ) -> None:
        """Start a piece of work on a level; replaces the one before.

        Args:
            total: units of work.
            done: how many of them were done before.
            alike: whether one takes about as long as another, so that the rest can be told.
        """
        self._alike[level] = alike
        self._parts[level] = (text, done, max(total, 1e-9))
        self._began[level] = (time.monotonic(), done)
        if self._bars is not None:
            if level in self._tasks:
                self._bars.remove_task(self._tasks[level])
            self._tasks[level] = self._bars.add_task(text, total=total)
            self._bars.update(self._tasks[level], completed=done)
        self._look(level)

    def advance(self, level: Level, amount: float = 1.0) -> None:
        """Tell that `amount` units more of the level's work are done."""
        self._look(level)
        if level not in self._parts:
            return
        text, done, total = self._parts[level]
        self._parts[level] = (text, done + amount, total)
        if self._bars is not None:
            self._bars.advance(self._tasks[level], amount)
        elif self._console is None:
            return
        elif time.monotonic() - self._last_line > self._interval:
            self.line(f"  {text}: {min(1.0, (done + amount) / total):.0%}{self._left(level)}")

    def end(self, level: Level) -> None:
        """Take a level's bar away."""
        self._look(level)
        self._parts.pop(level, None)
        if self._bars is not None and level in self._tasks:
            self._bars.remove_task(self._tasks.pop(level))

    def _stamp(self) -> str:
        """The time, and what is left of the run's epochs."""
        return f"[{datetime.now():%Y-%m-%d %H:%M:%S}{self._left('run', ' of training')}] "

    def _left(self, level: Level, of: str = "") -> str:
        """How long the rest of a level's work will take, by what it took so far; "" at its ends."""
        if level not in self._parts:
            return ""
        (_, done, total), (began, before) = self._parts[level], self._began[level]
        if not before < done < total or not self._alike[level]:
            return ""
        left = (time.monotonic() - began) * (total - done) / (done - before)
        return f", about {in_words(left)}{of} left"

    def _look(self, level: Level) -> None:
        if self._watch is not None and level != "part":
            self._watch()
