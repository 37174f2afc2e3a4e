"""Where runs are done. A launcher starts commands somewhere and tells what it sees of them.

It knows nothing of training: how far a run is, its own files say. What is submitted when, and what
is tried again, `drive` decides.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ltrobust.results.store import SuiteStore

WITH_PARENT = "LTROBUST_WITH_PARENT"
"""In the environment of a worker that is to end with the process that started it: the number of
that process, which may be gone before the worker can ask for it."""


@dataclass(frozen=True)
class Task:
    """One run to do: `python -m ltrobust work SUITE RUN_ID`, appending to `log`.

    Attributes:
        run_id: the run.
        command: what to start, the interpreter first.
        log: where its output goes.
        seconds: a guess at its length; tasks come longest first.
    """

    run_id: str
    command: tuple[str, ...]
    log: Path
    seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What the engine says of a task. "unknown": it did not answer, which never means "ended".

    Attributes:
        state: how far it is.
        where: such as "n17 (job 4711_12)", "cuda:3" or "waits: Priority".
        code: exit code of an ended process, below zero for a signal, where the engine knows it.
        final: why an ended task is not to be tried again, where the engine says so.
    """

    state: Literal["waiting", "running", "ended", "unknown"]
    where: str = ""
    code: int | None = None
    final: str = ""


class Launcher(Protocol):
    """One engine.

    Attributes:
        at_once: slots; None when the engine decides.
        pause: seconds between two looks.
        survives: whether its tasks go on when the driver is gone.
    """

    at_once: int | None
    pause: float
    survives: bool

    def attach(self) -> set[str]:
        """Runs that an earlier driver submitted and that the engine still has."""

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand tasks over; again for tasks to be tried once more. UserError when refused."""

    def look(self) -> Mapping[str, Seen]:
        """The state of every task submitted or attached, by run id; cheap enough for 1,000."""

    def cancel(self) -> None:
        """End everything submitted or attached, and return when it is ended."""

    def preview(self, tasks: Sequence[Task]) -> str:
        """What `submit` would do, as `--dry-run` shows it; "" where there is nothing to show."""


@dataclass(frozen=True)
class Site:
    """What a launcher is made for.

    Attributes:
        suite: the suite's directory, absolute.
        device: where the runs compute: "cpu", "cuda" or "cuda:N".
        threads: CPU threads of each process; None: the engine's or torch's choice.
        devices: of each run, with a process each (`--devices-per-run`).
        jobs: runs at once on this machine (`--jobs`).
        at_once: runs at once on a cluster (`--at-once`).
        slurm: what `--slurm` passes through, each `key=value`.
    """

    suite: Path
    device: str
    threads: int | None = None
    devices: int = 1
    jobs: int | None = None
    at_once: int | None = None
    slurm: tuple[str, ...] = ()


def find_launcher(name: str, site: Site) -> Launcher:
    """The launcher of this name for a site: the class of that name in its module here.

    Raises:
        UserError: an engine that is not installed here, or an option that it does not take.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    launcher: Launcher = getattr(module, name.capitalize())(site)
    return launcher


def work_command(suite: Path, run_id: str, plan: Path | None = None) -> tuple[str, ...]:
    """The command that does one run of a suite's plan, or of the plan in a file."""
    own = () if plan is None else ("--plan", str(plan))
    return (sys.executable, "-m", "ltrobust", "work", str(suite), run_id, *own)


def log_of(suite: Path, run_id: str) -> Path:
    """Where the output of a run's workers goes, turn after turn."""
    return SuiteStore(suite).logs / f"{run_id}.log"
