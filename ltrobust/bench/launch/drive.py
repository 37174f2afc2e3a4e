"""The loop that has a plan done by a launcher: what is submitted when, what is tried again.

What is done and what is lost is read from the runs' files and claims; of the engine only what it
still has is believed. One failed run never stops others.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ltrobust.bench.estimate import lengths
from ltrobust.bench.launch import Launcher, Seen, Task, log_of, work_command
from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.bench.plan_file import plan_in_use, write_plan
from ltrobust.bench.runner import Failure
from ltrobust.bench.standing import clock, finished, progress_of, standing
from ltrobust.bench.work import HELD, NO_DEVICE
from ltrobust.errors import RunError, UserError
from ltrobust.progress import Reporter
from ltrobust.results.claims import ClaimedError, Watch, claimed
from ltrobust.results.records import now
from ltrobust.results.store import SuiteStore

TRIES = 3
"""Turns that a run may take without getting further."""
TOLD_EVERY = 60.0
"""Seconds between two lines about the progress of one run."""
WATCHED_EVERY = 10.0


class LeftError(KeyboardInterrupt):
    """The driver is to end by a signal that is not the user's Ctrl-C: cluster jobs go on."""


@dataclass(frozen=True)
class Drive:
    """How a plan is driven.

    Attributes:
        launcher: where runs are done.
        detach: whether to leave once all is submitted that can be.
        refresh: called now and then while runs are done, to bring tables up to date.
        clock: seconds of a clock that never goes back.
        sleep: waits so many seconds.
    """

    launcher: Launcher
    detach: bool = False
    refresh: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, plan: Plan, suite: SuiteStore, reporter: Reporter) -> list[Failure]:
        """Have every run of a plan done; return those that are not.

        Raises:
            UserError: the engine refuses.
            KeyboardInterrupt: the driver was ended; what was submitted is ended too, unless it is
                to go on without the driver.
        """
        loop = _Loop(self, plan, suite, reporter)
        try:
            with _heeding():
                return loop.run()
        except KeyboardInterrupt as stop:
            if not (isinstance(stop, LeftError) and self.launcher.survives):
                self.launcher.cancel()
            elif loop.open:
                reporter.line(
                    f"{len(loop.open)} runs go on without this command; `ltrobust status "
                    f"{suite.path}` shows them, and the same command{_without(plan)} attaches again"
                )
            raise
        except BaseException:
            if not self.launcher.survives:
                self.launcher.cancel()
            raise


@dataclass
class _Open:
    """A run that is not at its end.

    Attributes:
        planned: the run.
        plan: a plan of it alone.
        failed: when it had failed before it was submitted, "" where it had not.
        submitted: whether the engine has it, or had it.
        ours: whether who holds it may be a turn of ours: it was handed over, or waited for, before.
        turns: turns without getting further.
        best: how far it has come.
        held: whether another does it, or may.
        seen: what the engine said last.
        told: what was said of it last, and when.
    """

    planned: PlannedRun
    plan: Plan
    failed: str = ""
    submitted: bool = False
    ours: bool = False
    turns: int = 0
    best: tuple[int, int, int] = (0, 0, 0)
    held: bool = False
    seen: Seen = field(default_factory=lambda: Seen("waiting"))
    told: tuple[str, float] = ("", 0.0)

    @property
    def run_id(self) -> str:
        return self.planned.run.run_id


class _Loop:
    """One drive of one plan; `open` are the runs that are not at their end."""

    def __init__(self, how: Drive, plan: Plan, suite: SuiteStore, reporter: Reporter) -> None:
        self._how, self._plan, self._suite, self._reporter = how, plan, suite, reporter
        self._launcher = how.launcher
        self._claims = Watch(suite.claims, clock=how.clock)
        self.open: dict[str, _Open] = {}
        self._failures: dict[str, str] = {}
        self._silent_since = ""
        self._waits: set[str] = set()
        self._watched = how.clock()
        self._file: Path | None = None

    def run(self) -> list[Failure]:
        """Submit what is to do, and look until all of it is at its end."""
        with plan_in_use(self._plan, self._suite) as self._file:
            return self._run()

    def _run(self) -> list[Failure]:
        plan, reporter = self._plan, self._reporter
        attached = self._launcher.attach() & {one.run.run_id for one in plan.runs}
        self._begin(attached)
        write_plan(plan, self._suite)
        reporter.begin("plan", "plan", len(plan.runs))
        reporter.advance("plan", len(plan.runs) - len(self.open))
        if attached:
            kept = "; no run is cleared" if plan.settings.overwrite == "all" else ""
            reporter.line(f"attached to {len(attached)} runs that were submitted before{kept}")
        self._submit()
        while self._stays():
            self._look()
            self._submit()
            self._watch()
            if self._stays():
                self._how.sleep(self._launcher.pause)
        if self._how.detach:
            self._leave()
        reporter.end("plan")
        return [Failure(run_id, reason) for run_id, reason in self._failures.items()]

    def _stays(self) -> bool:
        """Whether there is something to look at; detached, only until it is known who does what."""
        if not self._how.detach:
            return bool(self.open)
        held = [one.run_id for one in self.open.values() if one.held]
        return any(other is None or not other.alive for other in map(self._claims.holder, held))

    # what is to do ----------------------------------------------------------------------------

    def _begin(self, attached: set[str]) -> None:
        """Find the runs that are to do, cleared where all are to be done anew.

        Nothing is cleared where the engine still has some of them: others may have been done since
        they were submitted together.
        """
        settings = self._plan.settings
        for planned in self._plan.runs:
            store = self._suite.run(planned.run.run_id)
            try:
                if settings.overwrite == "all" and not attached:
                    self._clear(store.run_id)
                elif finished(planned, store, no_checks=settings.no_checks):
                    continue
                before = store.failure_record()
            except (RunError, UserError) as error:
                self._failures[store.run_id] = str(error)
                continue
            if before is not None and settings.overwrite == "never":
                kept = f"{before.reason} (kept; --overwrite failed tries again)"
                self._failures[store.run_id] = kept
                continue
            self.open[store.run_id] = _Open(
                planned,
                replace(self._plan, runs=(planned,)),
                failed="" if before is None else before.made,
                submitted=store.run_id in attached,
                ours=store.run_id in attached,
                best=progress_of(store),
            )

    def _clear(self, run_id: str) -> None:
        """Forget a run, unless another is doing it."""
        try:
            with claimed(self._suite.claims, run_id):
                self._suite.start_over(run_id)
        except ClaimedError as error:
            self._reporter.line(f"{error}; not cleared")

    def _submit(self) -> None:
        """Hand over what can begin: longest first, post-hoc runs when their base is trained."""
        ready = []
        for one in list(self.open.values()):
            if one.submitted or one.held:
                continue
            base = one.planned.base
            if base in self._failures and not self._suite.run(str(base)).trained:
                reason = f"it acts on {base}, which is not trained ({self._failures[str(base)]})"
                self._fail(one, reason)
            elif base in self.open and not self._suite.run(str(base)).trained:
                continue
            elif not self._left_to_another(one):
                ready.append(one)
        if not ready:
            return
        seconds = lengths([one.planned for one in ready], self._plan, self._suite)
        tasks = [
            Task(
                one.run_id,
                work_command(self._suite.path.absolute(), one.run_id, self._file),
                log_of(self._suite.path.absolute(), one.run_id),
                seconds[one.run_id],
            )
            for one in ready
        ]
        tasks.sort(key=lambda task: -task.seconds)
        for one in ready:
            one.submitted = True
        self._launcher.submit(tasks)

    def _left_to_another(self, one: _Open) -> bool:
        """Whether another command does a run, or may, for which no place of ours is to wait."""
        other = None if one.ours else self._claims.holder(one.run_id)
        one.ours = True
        if other is not None and other.alive is not False:
            self._wait_for(one, f"another ltrobust on {other}")
        return one.held

    def _wait_for(self, one: _Open, who: str) -> None:
        one.held = True
        self._reporter.line(f"{one.run_id}: {who} is doing it; waiting for that")

    def _leave(self) -> None:
        later = sum(not one.submitted for one in self.open.values())
        more = "; {} more act on these, or another does them, and are submitted by it later"
        more = more.format(later) if later else ""
        self._reporter.line(
            f"{len(self.open) - later} runs are submitted and go on without this command; "
            f"`ltrobust status {self._suite.path}` shows them, and the same command"
            f"{_without(self._plan)} attaches to them and makes the tables{more}"
        )

    # what comes of it -------------------------------------------------------------------------

    def _look(self) -> None:
        seen = self._launcher.look()
        silent = True
        for one in list(self.open.values()):
            if one.held:
                self._look_at_holder(one)
            if not one.submitted:
                continue
            now_seen = seen.get(one.run_id, Seen("unknown"))
            silent = silent and now_seen.state == "unknown"
            if now_seen.state == "ended":
                self._judge(one, now_seen)
            elif now_seen.state != "unknown":
                self._tell(one, now_seen)
        self._tell_silence(silent and any(one.submitted for one in self.open.values()))
        self._tell_waits()

    def _judge(self, one: _Open, seen: Seen) -> None:
        """Say what became of a run whose task has ended, by its files first of all."""
        store = self._suite.run(one.run_id)
        try:
            if finished(one.planned, store, no_checks=self._plan.settings.no_checks):
                self._done(one)
                return
            failure = store.failure_record()
        except UserError as error:
            self._fail(one, str(error))
            return
        one.submitted, one.seen = False, seen
        other = self._claims.holder(one.run_id)
        alive = other is not None and other.alive is not False
        if failure is not None and failure.made != one.failed:
            self._fail(one, failure.reason)
        elif seen.code == HELD or (alive and seen.code is None):
            self._wait_for(one, "another ltrobust" + ("" if other is None else f" on {other}"))
        elif seen.final:
            self._fail(one, seen.final)
        elif seen.code and seen.code != NO_DEVICE and not _signal(seen.code):
            # bad input, or it could not be started
            self._fail(one, f"{_last_line(one, self._suite)} (exit code {seen.code})")
        else:
            self._lost(one, seen)

    def _lost(self, one: _Open, seen: Seen) -> None:
        """Try a run again, as long as its turns get further."""
        further = progress_of(self._suite.run(one.run_id))
        got_on = any(a > b for a, b in zip(further, one.best, strict=True))
        one.turns = 0 if got_on else one.turns + 1
        one.best = (max(one.best[0], further[0]), max(one.best[1], further[1]), further[2])
        where = f" on {seen.where}" if seen.where else ""
        if one.turns >= TRIES:
            self._fail(
                one,
                f"no progress in {TRIES} turns, the last{where}{_how_ended(seen)}: "
                f"{_last_line(one, self._suite)}; a time limit or a memory limit may be too low",
            )
            return
        how = standing(one.plan, self._suite).progress()
        tries = "" if got_on else f" ({one.turns + 1} of {TRIES}, no progress)"
        self._reporter.line(f"{one.run_id}: lost at {how}{where}{_how_ended(seen)}, again{tries}")

    def _look_at_holder(self, one: _Open) -> None:
        """See whether another that does the run has done it, or is gone."""
        other = self._claims.holder(one.run_id)
        if other is None or other.alive is False:
            one.held = False
            self._judge(one, Seen("ended", "" if other is None else str(other)))
            return
        store = self._suite.run(one.run_id)
        try:
            if finished(one.planned, store, no_checks=self._plan.settings.no_checks):
                self._done(one)
        except UserError as error:
            self._fail(one, str(error))

    def _done(self, one: _Open) -> None:
        del self.open[one.run_id]
        self._reporter.line(f"{one.run_id}: done")
        self._reporter.advance("plan")

    def _fail(self, one: _Open, reason: str) -> None:
        del self.open[one.run_id]
        self._failures[one.run_id] = reason
        self._reporter.line(f"{one.run_id}: failed: {reason}")
        self._reporter.advance("plan")

    # what is told -----------------------------------------------------------------------------

    def _tell(self, one: _Open, seen: Seen) -> None:
        """A line where a run has begun or got on, at most one a minute."""
        before, clock_now = one.seen, self._how.clock()
        one.seen = seen
        if seen.state == "waiting":
            if before.state == "running":
                self._waits.add(seen.where.partition(" (")[0])
                self._reporter.line(f"{one.run_id}: {seen.where or 'waits'}, for another turn")
            return
        if before.state != "running" or seen.where != before.where:
            one.told = ("", clock_now)
            self._reporter.line(f"{one.run_id}: running on {seen.where}")
        elif clock_now - one.told[1] >= TOLD_EVERY:
            how = standing(one.plan, self._suite).progress()
            if how != one.told[0]:
                self._reporter.line(f"{one.run_id}: {how} on {seen.where}")
            one.told = (how, clock_now)

    def _tell_waits(self) -> None:
        """Say once how many runs wait for what."""
        waits = Counter(
            one.seen.where.partition(" (")[0]
            for one in self.open.values()
            if one.submitted and one.seen.state == "waiting" and one.seen.where
        )
        for why, number in waits.items():
            if why not in self._waits:
                self._waits.add(why)
                runs = "1 run" if number == 1 else f"{number} runs"
                self._reporter.line(f"{runs}: {why}")

    def _tell_silence(self, silent: bool) -> None:
        if silent and not self._silent_since:
            self._silent_since = now()
            self._reporter.line(
                f"the engine does not answer since {clock(self._silent_since)}; nothing is taken "
                "for ended until it does"
            )
        elif not silent and self._silent_since:
            self._silent_since = ""
            self._reporter.line("the engine answers again")

    def _watch(self) -> None:
        """Let trackers look, and tables be made."""
        if self._how.clock() - self._watched >= WATCHED_EVERY:
            self._watched = self._how.clock()
            self._reporter.advance("plan", 0)
            self._how.refresh()


def _without(plan: Plan) -> str:
    """The flags that would begin anew, or leave again, in words."""
    given = {"--detach": plan.settings.detach, "--overwrite all": plan.settings.overwrite == "all"}
    flags = " and ".join(flag for flag, here in given.items() if here)
    return f" without {flags}" if flags else ""


def _how_ended(seen: Seen) -> str:
    if seen.code is None:
        return ""
    number = _signal(seen.code)
    return f" (signal {number})" if number else f" (exit code {seen.code})"


def _signal(code: int) -> int:
    """The signal that ended a process or, told by a shell, its child; 0 for none."""
    return -code if code < 0 else code - 128 if code > 128 else 0


def _last_line(one: _Open, suite: SuiteStore) -> str:
    """The last thing that a run's worker said."""
    file = log_of(suite.path, one.run_id)
    try:
        lines = file.read_text(encoding="utf-8", errors="replace")[-2000:].split("\n")
    except OSError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    return f"{said[-1]} ({file})" if said else f"it said nothing ({file})"


@contextmanager
def _heeding() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into a `LeftError`, where signals can be heeded.

    One that is ignored stays so: `nohup` is to hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        raise LeftError

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heeded = [one for one in wanted if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
