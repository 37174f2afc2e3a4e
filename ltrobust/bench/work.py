"""`ltrobust work`: one run of a suite's plan in one process, wherever a launcher starts it.

It resolves nothing and schedules nothing. Files are whole at any moment, so it may be killed; asked
to end by a signal, it first saves the epoch that it is in, if one would be lost.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ltrobust.bench.launch import WITH_PARENT
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, PlannedRun, use_device
from ltrobust.bench.plan_file import planned_run
from ltrobust.bench.runner import do_run
from ltrobust.errors import RunError, UserError
from ltrobust.method import load_methods
from ltrobust.progress import Reporter
from ltrobust.results.claims import ClaimedError, Stop, end_claims, holder, this_host
from ltrobust.results.store import SuiteStore
from ltrobust.team import LostError

DONE, FAILED, HELD, STOPPED, LOST = 0, 1, 75, 130, 128 + 9
"""Exit codes; the last is that of a killed process, for one whose helper was killed."""
NO_DEVICE = 69
"""Exit code where the run's device is not there: the place is broken, not the run."""
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
GRACE = 20.0
"""Seconds that the end of an epoch is waited for after a SIGTERM; SLURM kills after 30."""
LIMIT_GRACE = 100.0
"""The same after USR1 or USR2, which say that a time limit is near."""
LIMIT_GRACE_IN = "LTROBUST_LIMIT_GRACE"
"""Where the environment has another number for it: how long before the limit a job is told."""
WAIT, WAIT_HERE = 600.0, 10.0
"""Seconds to wait for the holder of a run: on another machine it may be an earlier turn of the same
job, cut off from its engine, and on this one an earlier turn that is ending."""
AGAIN = 2.0


def work(directory: Path, run_id: str, reporter: Reporter, file: Path | None = None) -> int:
    """Do one planned run; return the exit code.

    Args:
        directory: the suite's.
        run_id: the run.
        reporter: told what goes on.
        file: the plan; None: the suite's plan.json.

    Raises:
        UserError: the run is not planned.
        KeyboardInterrupt: it was asked to end.
    """
    suite = SuiteStore(directory)
    planned, plan = planned_run(suite, run_id, file)
    load_methods(plan.settings.plugin)
    try:
        use_device(plan.device)
    except UserError as error:
        reporter.line(f"lost: {error}")
        return NO_DEVICE
    with stopping(suite.claims) as stop:
        try:
            reason = _base_first(planned, suite, reporter, stop, file)
            reason = reason or _do(planned, plan, suite, reporter, stop)
        except ClaimedError as error:
            reporter.line(f"{error}; left to it")
            return HELD
        except LostError as error:
            reporter.line(f"lost: {error}")
            return LOST
        except RunError as error:  # the claim cannot be written
            reason = str(error)
    if reason:
        reporter.line(f"failed: {reason}")
    return FAILED if reason else DONE


def _base_first(
    planned: PlannedRun, suite: SuiteStore, reporter: Reporter, stop: Stop, file: Path | None
) -> str:
    """Train what a post-hoc run acts on, under its own claim, unless that is there."""
    if planned.base is None or suite.run(planned.base).trained:
        return ""
    base, how = planned_run(suite, planned.base, file)
    reason = _base_first(base, suite, reporter, stop, file)
    if reason:
        return reason
    bare = base.bare()  # its own worker attacks it
    untested = replace(how, settings=how.settings.model_copy(update={"no_checks": True}))
    reason = _do(bare, untested, suite, reporter, stop)
    return f"{planned.run.method} acts on {planned.base}, which failed ({reason})" if reason else ""


def _do(planned: PlannedRun, plan: Plan, suite: SuiteStore, reporter: Reporter, stop: Stop) -> str:
    """Do a run, once whoever holds it is gone; return why it failed, else "".

    Raises:
        ClaimedError: it is still held after some time.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            return do_run(planned, suite, Loader(plan), plan, reporter, stop)
        except ClaimedError as error:
            other = holder(suite.claims, planned.run.run_id)
            wait = WAIT if other is not None and other.host != this_host() else WAIT_HERE
            if time.monotonic() - began > wait:
                raise
            if not told:
                reporter.line(f"{error}; waiting")
                told = True
            time.sleep(AGAIN)


@contextmanager
def stopping(claims: Path) -> Iterator[Stop]:
    """Let signals end this process when nothing is lost by it, at the latest after their grace.

    Only a flag is set by the signal itself: an exception out of its handler could meet any code. A
    thread ends the process at once where all is saved, and says so in the claims.
    """
    stop, over = Stop(), threading.Event()
    # elsewhere it cannot be told: a parent keeps its number there when it is gone
    parent = os.environ.get(WITH_PARENT) if os.name == "posix" else None

    latest = math.inf

    def heed(number: int, *_: object) -> None:
        nonlocal latest
        limit = float(os.environ.get(LIMIT_GRACE_IN, LIMIT_GRACE))
        grace = GRACE if number == signal.SIGTERM else limit
        latest = min(latest, time.monotonic() + grace)
        stop.asked = True

    def look() -> None:
        while not over.wait(0.2):
            if parent is not None and str(os.getppid()) != parent:
                heed(signal.SIGTERM)
            if stop.asked and (not stop.unsaved or time.monotonic() > latest):
                with suppress(OSError, UserError):
                    end_claims(claims)
                os._exit(STOPPED)

    before = {number: signal.signal(number, heed) for number in SIGNALS}
    thread = threading.Thread(target=look, name="ltrobust-stopping", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        over.set()
        thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)
