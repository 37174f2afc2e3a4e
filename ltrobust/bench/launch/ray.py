"""Runs as tasks of a Ray cluster, whose nodes see the suite's directory; needs `ltrobust[ray]`.

Ray finds a node with free CPUs and GPUs for each run and tells when one is gone. Trying again is
the driver's: Ray's own retries know nothing of progress, and would give a run that eats all memory
to one node after another. The cluster is the one that RAY_ADDRESS names, or one that runs here.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ltrobust.bench.launch import WITH_PARENT, Seen, Site, Task
from ltrobust.errors import UserError

TELL_EVERY = 20.0
"""Seconds after which a task says again where it is, for a board that was lost with its node."""
PATIENCE = 30.0
"""Seconds that workers have to end, longer than they take to save what would be lost."""
ANSWER = 10.0
"""Seconds that the cluster may take to say where tasks are."""


class Ray:
    """A queue of commands as tasks of a Ray cluster.

    Args:
        site: what runs need.

    Raises:
        UserError: Ray is not installed.
    """

    pause = 2.0
    survives = False

    def __init__(self, site: Site) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                f"--launcher ray: {error}; install it here and on the nodes: pip install "
                "'ltrobust[ray]'"
            ) from None
        self._ray: Any = ray
        self._site = site
        self.at_once = site.at_once
        self._board: Any = None
        self._queue: deque[Task] = deque()
        self._numbers = itertools.count()
        self._running: dict[str, tuple[Any, int]] = {}
        self._places: dict[int, str] = {}
        self._ended: dict[str, Seen] = {}

    def attach(self) -> set[str]:
        """Connect to the cluster. No runs: those of an earlier driver ended with it.

        Raises:
            UserError: there is no cluster, or it refuses.
        """
        if self._board is None:
            self._connect()
        return set()

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand tasks to Ray, or keep them while as many as wanted are there."""
        self.attach()
        for task in tasks:
            self._ended.pop(task.run_id, None)
            task.log.parent.mkdir(parents=True, exist_ok=True)
        self._queue.extend(tasks)
        self._fill()

    def look(self) -> Mapping[str, Seen]:
        """The state of every task; those that have ended make room for others."""
        silent = self._hear()
        for run_id, (ref, number) in list(self._running.items()):
            if self._ray.wait([ref], timeout=0)[0]:
                del self._running[run_id]
                self._ended[run_id] = self._end_of(ref, self._places.get(number, ""))
        self._fill()
        seen = {task.run_id: Seen("waiting") for task in self._queue}
        pending = Seen("unknown", silent) if silent else Seen("waiting", "waits for a free node")
        for run_id, (_, number) in self._running.items():
            place = self._places.get(number)
            seen[run_id] = Seen("running", place) if place else pending
        return {**self._ended, **seen}

    def cancel(self) -> None:
        """End all tasks: workers are asked first, and killed when they take too long."""
        self._queue.clear()
        refs = [ref for ref, _ in self._running.values()]
        with suppress(self._ray.exceptions.RayError):
            for ref in refs:
                self._ray.cancel(ref, recursive=False)
            if refs:
                self._ray.wait(refs, num_returns=len(refs), timeout=PATIENCE + ANSWER)
        self._running.clear()
        self._board = None
        self._ray.shutdown()

    def preview(self, tasks: Sequence[Task]) -> str:
        """What each task asks of the cluster."""
        cpus, gpus = self._needs()
        needs = f"{cpus} CPU{'s' if cpus != 1 else ''}" + (
            f" and {gpus} GPU{'s' if gpus != 1 else ''}" if gpus else ""
        )
        some = f", at most {self.at_once} at once" if self.at_once else ""
        return f"{len(tasks)} tasks of {needs} on the Ray cluster {_address()}{some}"

    def _connect(self) -> None:
        try:
            with _own_sigterm():
                self._ray.init(address=_address(), log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            why = " ".join(str(error).split())
            raise UserError(
                f"no Ray cluster answers at {_address()} ({why}); start one with ray start --head, "
                "or name it in RAY_ADDRESS"
            ) from None
        self._board = self._ray.remote(_Board).options(num_cpus=0, max_restarts=-1).remote()

    def _needs(self) -> tuple[int, int]:
        """CPUs and GPUs of a run."""
        each = self._site.devices
        return each * (self._site.threads or 1), 0 if self._site.device == "cpu" else each

    def _fill(self) -> None:
        """Hand tasks to Ray, as many as may be there."""
        cpus, gpus = self._needs()
        turn = self._ray.remote(_turn).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        kept = {key: value for key, value in os.environ.items() if key.startswith("LTROBUST_")}
        while self._queue and (self.at_once is None or len(self._running) < self.at_once):
            task, number = self._queue.popleft(), next(self._numbers)
            ref = turn.remote(number, task.command, task.log, kept, self._board)
            self._running[task.run_id] = ref, number

    def _hear(self) -> str:
        """Learn where tasks are; why that cannot be learned, or ""."""
        try:
            self._places.update(self._ray.get(self._board.told.remote(), timeout=ANSWER))
        except self._ray.exceptions.RayError as error:
            return f"Ray does not answer ({type(error).__name__})"
        return ""

    def _end_of(self, ref: Any, place: str) -> Seen:
        """How a task ended."""
        try:
            return Seen("ended", place, self._ray.get(ref))
        except self._ray.exceptions.RayTaskError as error:  # such as a directory that is not there
            why = " ".join(str(error.cause).split())
        except self._ray.exceptions.RayError as error:
            why = type(error).__name__
        return Seen("ended", f"{place} ({why})".strip())


class _Board:
    """An actor of the cluster that knows which tasks run where."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}

    def tell(self, number: int, place: str) -> None:
        self._places[number] = place

    def told(self) -> dict[int, str]:
        return self._places


def _turn(
    number: int, command: Sequence[str], log: Path, environment: Mapping[str, str], board: Any
) -> int:
    """One turn of a run, on a node; the exit code of its worker, which ends with this process.

    Raises:
        OSError: this node has no such folder for logs, or no such interpreter.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, WITH_PARENT: str(os.getpid())},
        )
    told = float("-inf")
    try:
        while True:
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                board.tell.remote(number, socket.gethostname())
            code = child.poll()
            if code is not None:
                return code
            time.sleep(0.2)
    finally:  # where the task is cancelled
        if child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
            child.kill()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does at a SIGTERM, which Ray changes."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _address() -> str:
    return os.environ.get("RAY_ADDRESS") or "auto"
