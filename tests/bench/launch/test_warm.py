"""The process that warm workers come from."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import pytest

from ltrobust.bench.launch import WITH_PARENT, warm
from ltrobust.bench.launch.warm import Nursery


def test_a_worker_that_does_not_begin_can_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltrobust.bench.launch.warm.START", 0.1)
    nursery = Nursery({})
    os.kill(nursery._process.pid, signal.SIGSTOP)  # as if it imported for ever
    worker = nursery.start(("--version",), {}, tmp_path / "log")
    worker.terminate()
    assert worker.wait(10) == -signal.SIGKILL
    assert not nursery.alive


def test_a_worker_is_told_the_process_that_it_ends_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Process:
        pid = 4711
        stdin, stdout = io.BytesIO(), io.BytesIO()

        def __init__(self, *_: object, **__: object) -> None: ...

        def kill(self) -> None: ...

        def wait(self) -> None: ...

    monkeypatch.setattr(warm.subprocess, "Popen", Process)
    nursery = Nursery({})
    nursery.start(("--version",), {"A": "b"}, tmp_path / "log")
    asked = json.loads(Process.stdin.getvalue())
    assert asked["environment"] == {"A": "b", WITH_PARENT: "4711"}
