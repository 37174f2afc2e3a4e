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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ltrobust.errors import Notice, RunError, UserError
from ltrobust.results.files import write_atomic
from ltrobust.results.records import now

BEAT = 20.0
"""Seconds between two signs of life of who holds a claim."""
SILENCE = 3
"""Beats without a sign of life after which a claim counts as that of a killed process."""


class ClaimedError(RunError):
    """The run is another's to do at this moment."""


class Claim:
    """A run of ours to do.

    Args:
        file: what is said about it.
        run_id: the run.
    """

    def __init__(self, file: Path, run_id: str) -> None:
        self._file, self._run_id = file, run_id
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
            "host": socket.gethostname(),
            "pid": os.getpid(),
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
def claimed(folder: Path, run_id: str, beat: float = BEAT) -> Iterator[Claim]:
    """Hold a run for as long as the block lasts.

    Args:
        folder: where the suite's claims lie.
        run_id: the run.
        beat: seconds between two signs of life.

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
    claim = Claim(file, run_id)
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

    Its beats are watched, not its clock; one on this machine is asked for.

    Raises:
        ClaimedError: it is.
    """
    first = _read(file)
    if not first or _is_dead_here(first):
        return
    for _ in range(SILENCE):
        time.sleep(beat)
        seen = _read(file)
        if not seen:
            return
        if seen != first:
            raise ClaimedError(f"{_who(run_id, seen)} is doing it")


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether a claim is that of a process of this machine that is no more."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
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
