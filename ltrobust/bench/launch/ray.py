"""Runs as tasks of a Ray cluster, whose nodes see the suite's directory; needs `ltrobust[ray]`.

Ray finds a node with free CPUs and GPUs for each run and tells when one is gone. Trying again is the
driver's: Ray's own retries know nothing of progress, and would give a run that eats all memory to
one node after another. The cluster is the one that RAY_ADDRESS names, or one that runs here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ltrobust.bench.launch import Seen, Site, Task
from ltrobust.bench.work import WITH_PARENT
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
        self._running: dict[str, Any] = {}
        self._ended: dict[str, Seen] = {}
        self._places: dict[str, str] = {}

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
        self._queue.extend(tasks)
        self._fill()

    def look(self) -> Mapping[str, Seen]:
        """The state of every task; those that have ended make room for others."""
        names = {ref: run_id for run_id, ref in self._running.items()}
        done, _ = (
            self._ray.wait(list(names), num_returns=len(names), timeout=0) if names else ([], 0)
        )
        silent = self._hear()
        for ref in done:
            run_id = names[ref]
            del self._running[run_id]
            self._ended[run_id] = self._end_of(run_id, ref)
            self._places.pop(run_id, None)
        self._fill()
        seen = {task.run_id: Seen("waiting") for task in self._queue}
        for run_id in self._running:
            place = self._places.get(run_id)
            waiting = (
                Seen("unknown", silent) if silent else Seen("waiting", "waits for a free node")
            )
            seen[run_id] = Seen("running", place) if place else waiting
        return {**self._ended, **seen}

    def cancel(self) -> None:
        """End all tasks: workers are asked first, and killed when they take too long."""
        self._queue.clear()
        refs = list(self._running.values())
        with suppress(self._ray.exceptions.RayError):
            for ref in refs:
                self._ray.cancel(ref, recursive=False)
            if refs:
                self._ray.wait(refs, num_returns=len(refs), timeout=PATIENCE + ANSWER)
        self._running.clear()
        self._ray.shutdown()

    def preview(self, tasks: Sequence[Task]) -> str:
        """What each task asks of the cluster."""
        needs = " and ".join(f"{n:g} {kind}" for kind, n in self._needs().items() if n)
        some = f", at most {self.at_once} at once" if self.at_once else ""
        return f"{len(tasks)} tasks of {needs} on the Ray cluster {_address()}{some}"

    def _connect(self) -> None:
        try:
            self._ray.init(address=_address(), log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            why = " ".join(str(error).split())
            raise UserError(
                f"no Ray cluster answers at {_address()} ({why}); start one with ray start --head, "
                "or name it in RAY_ADDRESS"
            ) from None
        self._board = self._ray.remote(_Board).options(num_cpus=0, max_restarts=-1).remote()

    def _needs(self) -> dict[str, float]:
        """CPUs and GPUs of a run."""
        gpus = 0 if self._site.device == "cpu" else 1
        return {"CPU": self._site.threads or 1, "GPU": gpus}

    def _fill(self) -> None:
        """Hand tasks to Ray, as many as may be there."""
        needs = self._needs()
        turn = self._ray.remote(_turn).options(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_retries=0
        )
        kept = {key: value for key, value in os.environ.items() if key.startswith("LTROBUST_")}
        while self._queue and (self.at_once is None or len(self._running) < self.at_once):
            task = self._queue.popleft()
            words = (task.run_id, task.command, task.log, kept, self._board)
            self._running[task.run_id] = turn.options(name=task.run_id).remote(*words)

    def _hear(self) -> str:
        """Learn where tasks are; why that cannot be learned, or ""."""
        try:
            told = self._ray.get(self._board.told.remote(), timeout=ANSWER)
        except self._ray.exceptions.RayError as error:
            return f"Ray does not answer ({type(error).__name__})"
        self._places.update(told)
        return ""

    def _end_of(self, run_id: str, ref: Any) -> Seen:
        """How a task ended."""
        place = self._places.get(run_id, "")
        try:
            return Seen("ended", place, self._ray.get(ref))
        except self._ray.exceptions.RayTaskError as error:  # such as a directory that is not there
            return Seen("ended", f"{place} ({' '.join(str(error.cause).split())})".strip())
        except self._ray.exceptions.RayError as error:
            return Seen("ended", f"{place} ({type(error).__name__})".strip())


class _Board:
    """An actor of the cluster that knows which tasks run where."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def tell(self, run_id: str, place: str) -> None:
        self._places[run_id] = place

    def told(self) -> dict[str, str]:
        return self._places


def _address() -> str:
    return os.environ.get("RAY_ADDRESS") or "auto"


def _turn(
    run_id: str, command: Sequence[str], log: Path, environment: Mapping[str, str], board: Any
) -> int:
    """One turn of a run, on a node; the exit code of its worker, which ends with this process.

    Raises:
        OSError: this node has no such log folder or no such interpreter.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, WITH_PARENT: "1"},
        )
    try:
        told = 0.0
        while (code := child.poll()) is None:
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                board.tell.remote(run_id, socket.gethostname())
            time.sleep(0.2)
        return code
    finally:  # the task was cancelled
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
