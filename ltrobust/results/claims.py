"""Who does which run: a claim on one run, for as long as a process works on it.

A claim saves double work; nothing depends on it for its truth, for facts are only ever added. The
operating system frees the lock of a process that ends, however it ends. Where the file system has
no locks (some NFS and Lustre), a heartbeat in the claim's file stands for one.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ltrobust.errors import Notice, RunError, UserError
from ltrobust.results.files import write_atomic
from ltrobust.results.records import now

BEAT = 20.0
"""Seconds between two signs of life of who holds a claim."""
SILENCE = 3
"""Beats without a sign of life after which, and one more, a claim counts as that of a killed
process."""

JOBS = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), ("SLURM_JOB_ID",), ("RAY_JOB_ID",)
"""Where engines tell a process what it is called there."""


class ClaimedError(RunError):
    """The run is another's to do at this moment."""


@dataclass
class Stop:
    """Whether this process is to end.

    Attributes:
        asked: it is, as soon as nothing is lost by it.
        unsaved: something is done that is not stored yet.
    """

    asked: bool = False
    unsaved: bool = False


@dataclass(frozen=True)
class Holder:
    """Who says to be doing a run.

    Attributes:
        host: name of the machine.
        pid: its process there.
        job: what an engine calls it, such as "4711_12"; "" without one.
        since: when it began, UTC, as in records.
        alive: whether it seems so; None: that cannot be known yet.
    """

    host: str
    pid: int
    job: str
    since: str
    alive: bool | None

    def __str__(self) -> str:
        return f"{self.host} (job {self.job})" if self.job else f"{self.host} (process {self.pid})"


class Claim:
    """A run of ours to do.

    Args:
        file: what is said about it.
        run_id: the run.
        stop: whether we are to end.
    """

    def __init__(self, file: Path, run_id: str, stop: Stop) -> None:
        self._file, self._run_id = file, run_id
        self.stop = stop
        self._token = uuid.uuid4().hex
        self._since = now()
        self._beats = 0

    def check(self) -> None:
        """Look whether the run is still ours, before something of it is saved.

        Raises:
            ClaimedError: another has taken it over, as this process was silent for too long.
        """
        holder = _read(self._file)
        if holder and holder.get("token") != self._token:
            raise ClaimedError(f"{_who(self._run_id, holder)} has taken the run over: stopped here")

    def beat(self) -> None:
        """Show that we are alive."""
        self._beats += 1
        content = {
            "host": this_host(),
            "pid": os.getpid(),
            "job": _job(),
            "since": self._since,
            "token": self._token,
            "beats": self._beats,
        }
        write_atomic(self._file, (json.dumps(content) + "\n").encode())

    def end(self) -> None:
        """Say that nobody does the run now, if it is still ours."""
        if _read(self._file).get("token") == self._token:
            with suppress(OSError):
                self._file.unlink()


@contextmanager
def claimed(
    folder: Path, run_id: str, beat: float = BEAT, stop: Stop | None = None
) -> Iterator[Claim]:
    """Hold a run for as long as the block lasts.

    Args:
        folder: where the suite's claims lie.
        run_id: the run.
        beat: seconds between two signs of life.
        stop: whether this process is to end; None: it is never asked to.

    Raises:
        ClaimedError: another process does the run.
        UserError: the claim cannot be written.
    """
    file = folder / f"{run_id}.json"
    lock = FileLock(folder / f"{run_id}.lock", timeout=0, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ClaimedError(f"{_who(run_id, _read(file))} is doing it") from None
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{error.filename or folder} cannot be written ({error.strerror}); change its "
            "permissions or choose another directory with --output"
        ) from None
    except (OSError, NotImplementedError) as error:
        _tell_no_locks(folder, error)
        _wait_for_silence(file, run_id, beat)
    claim = Claim(file, run_id, stop or Stop())
    try:
        claim.beat()
        with _beating(claim, beat):
            yield claim
    finally:
        claim.end()
        with suppress(OSError):
            lock.release()


@contextmanager
def _beating(claim: Claim, beat: float) -> Iterator[None]:
    """Show signs of life beside the work."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(beat):
            with suppress(RunError, OSError):  # a full disk is told by the work itself
                claim.check()
                claim.beat()

    thread = threading.Thread(target=go_on, name="ltrobust-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _tell_no_locks(folder: Path, error: Exception) -> None:
    reason = getattr(error, "strerror", None) or str(error)
    notice = (
        f"the file system of {folder} has no locks ({' '.join(reason.split())}); who does which "
        "run is told by heartbeats instead, and a killed run is taken over after a minute or so"
    )
    warnings.warn(notice, Notice, stacklevel=2)


def _wait_for_silence(file: Path, run_id: str, beat: float) -> None:
    """Without locks: look whether the holder of a claim is alive.

    Raises:
        ClaimedError: it is.
    """
    watch = Watch(file.parent, beat)
    while (other := watch.holder(run_id)) is not None and other.alive is None:
        time.sleep(beat)
    if other is not None and other.alive:
        raise ClaimedError(f"{_who(run_id, _read(file))} is doing it")


class Watch:
    """Who does which runs, looked at again and again; nothing is locked or written.

    A holder is alive as long as its claim changes over our own clock, whatever the clocks of two
    machines say; nothing is known of it at first. A process of this machine that is no more is dead
    at once.

    Args:
        folder: where the suite's claims lie.
        beat: seconds between two signs of life.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self, folder: Path, beat: float = BEAT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._clock = folder, clock
        self._patience = (SILENCE + 1) * beat
        self._known: dict[str, tuple[dict[str, Any], float, bool]] = {}

    def holder(self, run_id: str) -> Holder | None:
        """Who says to be doing a run; None where nobody does."""
        said = _read(self._folder / f"{run_id}.json")
        if not said:
            self._known.pop(run_id, None)
            return None
        before = self._known.get(run_id)
        if before is None or before[0] != said:
            self._known[run_id] = said, self._clock(), before is not None
        _, since, changed = self._known[run_id]
        dead = _is_dead_here(said) or self._clock() - since >= self._patience
        return _as_holder(said, False if dead else True if changed else None)


def holder(folder: Path, run_id: str) -> Holder | None:
    """Who says to be doing a run, for who looks once: whether it is alive is a guess.

    One on another machine counts so for some beats after its last sign, by the clocks of both; what
    depends on it is decided by a `Watch`.
    """
    file = folder / f"{run_id}.json"
    said = _read(file)
    if not said:
        return None
    if said.get("host") == this_host():
        return _as_holder(said, not _is_dead_here(said))
    try:
        return _as_holder(said, time.time() - file.stat().st_mtime < (SILENCE + 1) * BEAT)
    except OSError:
        return None


def _as_holder(said: dict[str, Any], alive: bool | None) -> Holder:
    pid = said["pid"] if isinstance(said.get("pid"), int) else 0
    host, job, since = (str(said.get(key, "")) for key in ("host", "job", "since"))
    return Holder(host or "?", pid, job, since, alive)


def end_claims(folder: Path) -> None:
    """Say of all runs that this process holds that nobody does them now, as it ends at once."""
    for file in folder.glob("*.json"):
        said = _read(file)
        if (said.get("host"), said.get("pid")) == (this_host(), os.getpid()):
            with suppress(OSError):
                file.unlink()


def this_host() -> str:
    """What this machine is called in claims."""
    return socket.gethostname()


def _job() -> str:
    """What an engine calls this process."""
    for names in JOBS:
        parts = [os.environ[name] for name in names if os.environ.get(name)]
        if len(parts) == len(names):
            return "_".join(parts)
    return ""


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether a claim is that of a process of this machine that is no more."""
    if holder.get("host") != this_host() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _read(file: Path) -> dict[str, Any]:
    """What a claim says; {} where there is none, or nothing that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _who(run_id: str, holder: dict[str, Any]) -> str:
    known = f" ({holder['host']}, process {holder.get('pid')})" if "host" in holder else ""
    return f"{run_id}: another ltrobust{known}"
