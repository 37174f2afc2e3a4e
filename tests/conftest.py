"""One thread a test process, as the suite runs several of them at once; and a short AutoAttack."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it

from typing import Any

import pytest

ITERATIONS = {"apgd": 3, "apgd_targeted": 2, "fab": 2}


@pytest.fixture
def short_autoattack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let AutoAttack make few iterations, for tests of what is around it."""
    from ltrobust.attacks.autoattack import _Attacks

    build = _Attacks.__init__

    def short_build(self: Any, *arguments: Any) -> None:
        build(self, *arguments)
        for name, iterations in ITERATIONS.items():
            getattr(self._aa, name).n_iter = iterations
        self._aa.square.n_queries = 10

    monkeypatch.setattr(_Attacks, "__init__", short_build)
