"""Workers that begin with everything imported: forked from one process that has done so once.

Importing takes seconds, a small run less. Each run still is a process of its own, which may be
killed without harm to others. The process that they come from never computes and never touches a
device; it speaks JSON lines, and ends with the driver.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ltrobust.bench.launch import WITH_PARENT
from ltrobust.method import load_methods

COMMAND = (sys.executable, "-m", "ltrobust")
"""How commands begin that can be done so."""
IMPORTED = ("ltrobust.cli", "ltrobust.bench.work", "torch._dynamo", "sklearn.datasets")
"""What every worker needs, and what torch and the data import on their first use."""
START = 60.0
"""Seconds that a worker may take to begin before one that is to end is given up."""
LOOK = 0.02
"""Seconds between two looks for workers that have ended."""


class Nursery:
    """The driver's end: starts commands of ltrobust in forked processes.

    Args:
        environment: of the process that they are forked from.

    Attributes:
        end: ends that process, which else ends with this object.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-m", __name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self.end = weakref.finalize(self, _end, self._process)
        self._half = b""
        self._children: dict[int, Warm] = {}

    @property
    def alive(self) -> bool:
        """Whether it can start something."""
        return self._process.poll() is None

    def start(self, words: tuple[str, ...], environment: Mapping[str, str], log: Path) -> Warm:
        """Start `ltrobust WORDS` with its output at the end of a log."""
        number = len(self._children)
        self._children[number] = Warm(self)
        told = {**environment, WITH_PARENT: str(self._process.pid)}
        asked = {"number": number, "words": words, "environment": told}
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it counts as lost
            self._process.stdin.write(json.dumps({**asked, "log": str(log)}).encode() + b"\n")
            self._process.stdin.flush()
        return self._children[number]

    def hear(self) -> None:
        """Take note of what has begun and ended."""
        out = self._process.stdout
        assert out is not None
        while out.closed or select.select([out], [], [], 0)[0]:
            chunk = b"" if out.closed else os.read(out.fileno(), 1 << 16)
            if not chunk:  # it is gone, and its children end themselves
                for child in self._children.values():
                    child.code = -signal.SIGKILL if child.code is None else child.code
                break
            *lines, self._half = (self._half + chunk).split(b"\n")
            for line in lines:
                said = json.loads(line)
                child = self._children[said["number"]]
                child.pid, child.code = said["pid"], said.get("code")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process that workers come from; those that live end themselves."""
    process.kill()
    for pipe in (process.stdin, process.stdout):  # a worker that has not begun may hold its end
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()


class Warm:
    """One worker, as `subprocess.Popen` would show it.

    Attributes:
        pid: its process, once it has begun.
        code: its exit code, once it has ended.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self.pid: int | None = None
        self.code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, below zero for a signal; None while it lives."""
        if self.code is None:
            self._nursery.hear()
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired where that takes longer."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired("ltrobust", timeout or 0)
            time.sleep(LOOK)
        return code

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self._send(signal.SIGKILL)

    def _send(self, kind: signal.Signals) -> None:
        end = time.monotonic() + START
        while self.poll() is None and self.pid is None:
            if time.monotonic() > end:  # nothing begins there any more
                self._nursery.end()
            time.sleep(LOOK)
        if self.code is None and self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, kind)


def import_all() -> None:
    """Import what every worker needs."""
    for name in IMPORTED:
        with suppress(ImportError):
            importlib.import_module(name)
    load_methods(())


def serve() -> None:
    """The other end: fork a worker for each line, and tell when one has ended, until no line can
    come any more.
    """
    import_all()
    gc.collect()
    gc.freeze()  # nothing that is shared with children is to be written to
    lines, numbers = b"", dict[int, int]()
    while True:
        if select.select([0], [], [], LOOK if numbers else None)[0]:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return
            *whole, lines = (lines + chunk).split(b"\n")
            for line in whole:
                asked = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _be(asked)
                numbers[pid] = asked["number"]
                _tell(number=asked["number"], pid=pid)
        for pid in list(numbers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                _tell(number=numbers.pop(pid), pid=pid, code=code)


def _tell(**said: int) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


def _be(asked: dict[str, Any]) -> None:
    """Be the worker: in a session of its own, with its own output; never returns."""
    code: object = 1
    try:
        os.setsid()
        os.environ.update(asked["environment"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for own, fixed in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(own, fixed)
        sys.argv = ["ltrobust", *asked["words"]]
        from ltrobust.cli import main

        try:
            main()
        except SystemExit as stop:
            code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    serve()
