"""Runs on this machine, several at once: a process a run, a CUDA device or a share of cores each.

Nothing outlives the driver: workers are ended with it, and end themselves where it was killed.
Commands of ltrobust begin warm on Linux; elsewhere a fork of what has threads is not safe.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch

from ltrobust.bench.launch import WITH_PARENT, Seen, Site, Task
from ltrobust.bench.launch.warm import COMMAND, Nursery
from ltrobust.bench.work import GRACE, NO_DEVICE
from ltrobust.errors import UserError

PATIENCE = GRACE + 5
"""Seconds that workers have to end before they are killed: longer than they take to save."""


class Process(Protocol):
    """What is asked of a worker; see `subprocess.Popen`."""

    def poll(self) -> int | None:
        """Its exit code, None while it lives."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """Kill it."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Attributes:
        where: what it is called.
        environment: what a worker there is told.
    """

    where: str
    environment: Mapping[str, str]


class Local:
    """A queue of commands over the slots of this machine."""

    pause = 0.2
    survives = False

    def __init__(self, site: Site) -> None:
        self._free = deque(_slots(site))
        self.at_once: int | None = len(self._free)
        self._queue: deque[Task] = deque()
        self._running: dict[str, tuple[Process, Slot]] = {}
        self._ended: dict[str, Seen] = {}
        self._nursery: Nursery | None = None
        self._shared = {} if site.threads is None else {"OMP_NUM_THREADS": str(site.threads)}

    def attach(self) -> set[str]:
        """None: the workers of an earlier driver ended with it."""
        return set()

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks; as many as there are slots begin at once."""
        for task in tasks:
            self._ended.pop(task.run_id, None)
        self._queue.extend(tasks)
        self._fill()

    def look(self) -> Mapping[str, Seen]:
        """The state of every task; a slot that has become free takes the next one."""
        for run_id, (process, slot) in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[run_id]
                if code != NO_DEVICE or not (self._free or self._running):  # else it stays out
                    self._free.append(slot)
                self._ended[run_id] = Seen("ended", slot.where, code)
        self._fill()
        waiting = {task.run_id: Seen("waiting") for task in self._queue}
        running = {key: Seen("running", slot.where) for key, (_, slot) in self._running.items()}
        return {**self._ended, **waiting, **running}

    def cancel(self) -> None:
        """End all workers: asked first, killed when they take too long."""
        self._queue.clear()
        processes = [process for process, _ in self._running.values()]
        for process in processes:
            process.terminate()
        end = time.monotonic() + PATIENCE
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        if self._nursery is not None:
            self._nursery.end()
            self._nursery = None

    def preview(self, tasks: Sequence[Task]) -> str:
        """How the tasks share out this machine."""
        slots = ", ".join(slot.where for slot in self._free)
        return f"{len(tasks)} runs, {self.at_once} at once here: {slots}"

    def _fill(self) -> None:
        while self._queue and self._free:
            task, slot = self._queue.popleft(), self._free.popleft()
            self._running[task.run_id] = (self._start(task, slot), slot)

    def _start(self, task: Task, slot: Slot) -> Process:
        """Start a worker, warm where that is possible."""
        task.log.parent.mkdir(parents=True, exist_ok=True)
        if task.command[: len(COMMAND)] != COMMAND or sys.platform != "linux":
            return _start_cold(task, slot)
        if self._nursery is None or not self._nursery.alive:
            self._nursery = Nursery(self._shared)
        return self._nursery.start(task.command[len(COMMAND) :], slot.environment, task.log)


def _start_cold(task: Task, slot: Slot) -> subprocess.Popen[bytes]:
    """Start a worker in a session of its own: a Ctrl-C in the terminal is the driver's alone."""
    with task.log.open("ab") as log:
        return subprocess.Popen(
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **slot.environment, WITH_PARENT: str(os.getpid())},
            start_new_session=True,
        )


def slot_count(device: str, jobs: int | None, each: int = 1) -> int:
    """Runs that this machine does at once: one a CUDA device, and on the CPU as many as wanted.

    Args:
        device: where they compute.
        jobs: how many are wanted at once; None: as many as there are devices for.
        each: devices of a run.

    Raises:
        UserError: more are wanted than there are devices.
    """
    there = 1 if ":" in device else len(visible_devices()) // each
    if device == "cpu":
        return jobs or 1
    if jobs is not None and jobs > there:
        devices = f"{there * each} CUDA device{'s' if there * each != 1 else ''}"
        own = "a device" if each == 1 else f"{each} devices"
        raise UserError(
            f"--jobs {jobs}: a run has {own} of its own, and --device {device} gives {devices}; "
            f"give --jobs {there} or fewer, or --device cpu"
        )
    return jobs or there


def visible_devices() -> list[str]:
    """CUDA devices of this process, as CUDA_VISIBLE_DEVICES calls them."""
    there = [str(number) for number in range(torch.cuda.device_count())]
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named[: len(there)] if len(named) >= len(there) > 0 and named != [""] else there


def _slots(site: Site) -> list[Slot]:
    number = slot_count(site.device, site.jobs, site.devices)
    threads = {} if site.threads is None else {"OMP_NUM_THREADS": str(site.threads)}
    if site.device == "cuda":
        devices, each = visible_devices(), site.devices
        own = [",".join(devices[first : first + each]) for first in range(0, number * each, each)]
        return [Slot(f"cuda:{few}", {"CUDA_VISIBLE_DEVICES": few, **threads}) for few in own]
    named = "slot {}" if site.device == "cpu" else site.device
    return [Slot(named.format(place), threads) for place in range(number)]
