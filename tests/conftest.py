"""One thread a test process, as the suite runs several of them at once; and a short AutoAttack.

Every test begins with the same state of torch's and NumPy's global generators, whatever ran before.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it

from typing import Any

import pytest

ITERATIONS = {"apgd": 3, "apgd_targeted": 2, "fab": 2}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Networks that a test draws without a seed of their own are the same in any order of tests."""
    for name in ("torch", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, "manual_seed" if name == "torch" else "seed")(0)


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
