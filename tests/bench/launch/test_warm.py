"""The process that warm workers come from."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

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
