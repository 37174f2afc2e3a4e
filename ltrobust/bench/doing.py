"""Where the runs of a plan are done: one after the other in this process, or by a launcher.

Decided once, from what was asked for and what this machine has; how a launcher is driven is not
known here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ltrobust.bench.crew import LAUNCHED
from ltrobust.bench.launch import Launcher, Site, Task, find_launcher, log_of, work_command
from ltrobust.bench.launch.drive import Drive
from ltrobust.bench.launch.local import slot_count
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, threads_each
from ltrobust.bench.plan_file import fixed_plan, write_plan
from ltrobust.bench.runner import Failure, run_plan
from ltrobust.bench.settings import Settings
from ltrobust.bench.tuning import tuned
from ltrobust.errors import UserError
from ltrobust.progress import Reporter
from ltrobust.results.store import SuiteStore

FIRST_TABLES = 60.0
"""Seconds until tables are first made while runs are done, at the earliest."""
SHARE = 20
"""Making tables takes one in so many seconds at most."""


@dataclass(frozen=True)
class Doing:
    """How a plan is done.

    Attributes:
        plan: what to do, with the threads of its runs.
        launcher: where; None: in this process.
    """

    plan: Plan
    launcher: Launcher | None

    @property
    def remote(self) -> bool:
        """Whether the runs are done on other machines."""
        return self.plan.settings.remote

    @property
    def at_once(self) -> int:
        """Runs at once, where that is known; else 1."""
        return 1 if self.launcher is None else self.launcher.at_once or 1

    def words(self) -> str:
        """How, for the line that tells what is about to be done."""
        if self.launcher is None:
            return ""
        named = self.plan.settings.launcher or "local"
        number = self.launcher.at_once
        return f" by {named}" + (f", {number} at once" if number else "")

    @contextmanager
    def runner(
        self, store: SuiteStore, load: Loader, reporter: Reporter
    ) -> Iterator[Callable[[Plan], list[Failure]]]:
        """What does a plan of the same settings; it may be called several times.

        Raises:
            UserError: data is to be downloaded and cannot be.
        """
        launcher, settings = self.launcher, self.plan.settings
        if launcher is None:

            def here(plan: Plan) -> list[Failure]:
                write_plan(plan, store)
                return run_plan(plan, store, load, reporter)

            yield here
            return
        if settings.download:  # once, not by every worker
            for planned in self.plan.runs:
                load(planned)
        with _tables(store, not settings.no_report) as refresh:
            drive = Drive(launcher, detach=settings.detach, refresh=refresh)
            yield lambda plan: drive(plan, store, reporter)


def how_to_do(plan: Plan, store: SuiteStore) -> Doing:
    """Decide where a plan is done.

    Under torchrun that is this process: others of this machine belong to it already.

    Raises:
        UserError: flags that do not go together, an engine that is not installed, more jobs than
            devices.
    """
    settings = plan.settings
    _check(settings)
    there = LAUNCHED.get()
    if there is not None:
        if settings.launcher is not None or settings.jobs not in (None, 1):
            given = "--jobs" if settings.launcher is None else f"--launcher {settings.launcher}"
            raise UserError(
                f"{given} under a torchrun of {there.size} processes, which do one run after the "
                "other together; leave one of the two out"
            )
        return Doing(plan, None)
    each = settings.devices_per_run
    slots = 1 if settings.remote else slot_count(plan.device, settings.jobs, each)
    alone = settings.jobs is None and (slots == 1 or len(plan.runs) == 1)
    if settings.launcher is None and (alone or settings.jobs == 1):
        return Doing(plan, None)
    if settings.threads is None and not settings.remote:
        plan = replace(plan, threads=threads_each(slots, each))
    elif settings.threads is None and plan.device == "cpu":
        plan = replace(plan, threads=1)  # nodes differ in cores, and results would with them
    site = Site(
        suite=store.path.absolute(),
        device=plan.device,
        threads=settings.threads or plan.threads,
        devices=each,
        jobs=None if settings.remote else slots,
        at_once=settings.at_once,
        slurm=settings.slurm,
    )
    launcher = find_launcher(settings.launcher or "local", site)
    if settings.detach and not launcher.survives:
        raise UserError(
            f"--detach: the runs of --launcher {settings.launcher or 'local'} end with this "
            "command; it goes with --launcher slurm"
        )
    if settings.detach and tuned(plan):
        raise UserError("--select val chooses among trained runs, so it cannot go with --detach")
    return Doing(plan, launcher)


def _check(settings: Settings) -> None:
    """Refuse flags of a launcher that was not asked for."""
    if settings.slurm and settings.launcher != "slurm":
        raise UserError("--slurm goes with --launcher slurm")
    if settings.jobs is not None and settings.remote:
        raise UserError(
            f"--jobs: runs at once on this machine; with --launcher {settings.launcher} it is "
            "--at-once"
        )
    if settings.at_once is not None and not settings.remote:
        raise UserError("--at-once: runs at once on a cluster; on this machine it is --jobs")


def preview(doing: Doing, store: SuiteStore) -> str:
    """What the launcher would be told, for `--dry-run`; "" without one."""
    if doing.launcher is None:
        return ""
    suite = store.path.absolute()
    ids = [planned.run.run_id for planned in doing.plan.runs]
    file = fixed_plan(doing.plan, store, write=False)
    tasks = [Task(one, work_command(suite, one, file), log_of(suite, one)) for one in ids]
    return doing.launcher.preview(tasks)


@contextmanager
def _tables(store: SuiteStore, wanted: bool) -> Iterator[Callable[[], None]]:
    """A function that has tables and page made now and then, beside what goes on."""
    tables = _Tables(store.path)
    try:
        yield tables if wanted else lambda: None
    finally:
        tables.end()


class _Tables:
    """Makes a suite's tables in a process of its own, whenever runs have been evaluated."""

    def __init__(self, suite: Path) -> None:
        self._suite = suite
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._next = self._began + FIRST_TABLES
        self._shown = 0

    def __call__(self) -> None:
        now = time.monotonic()
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._process = None
            self._next = now + max(FIRST_TABLES, SHARE * (now - self._began))
        if now < self._next:
            return
        made = sum(1 for _ in self._suite.glob("runs/*/attacks/*.json"))
        if made == self._shown:
            return
        self._shown, self._began = made, now
        log = SuiteStore(self._suite).logs / "report.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ltrobust", "report", str(self._suite)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def end(self) -> None:
        """Make no more tables."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
