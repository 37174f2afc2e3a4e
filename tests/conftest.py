"""One thread a test process, as the suite runs several of them at once; and a short AutoAttack.

Every test begins with the same state of torch's and NumPy's global generators, whatever ran before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it

from typing import Any

import pytest

TESTS = Path(__file__).parent
LONGEST = (
    "methods/test_conformance.py",
    "team/test_forked.py",
    "bench/test_resume.py",
    "bench/test_foreign_models.py",
    "evaluation/test_reliability.py",
    "report/test_gallery.py",
    "bench/test_report_command.py",
    "benchmarks/test_speed_scripts.py",
    "benchmarks/test_gpu_day.py",
    "bench/test_cli_end_to_end.py",
    "attacks/test_autoattack.py",
    "docs/test_docs.py",
    "evaluation/test_in_place.py",
)
"""Files that take tens of seconds; a new one need not join unless it ends the suite alone."""
ITERATIONS = {"apgd": 3, "apgd_targeted": 2, "fab": 2}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: whole files go to processes, and the last one must be short."""
    place = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Networks that a test draws without a seed of their own are the same in any order of tests."""
    for name in ("torch", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, "manual_seed" if name == "torch" else "seed")(0)


def outline(figure: Any, kind: str, dpi: int = 0) -> bytes:
    """The texts and lines of a figure in place of its picture."""
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    texts = [text.get_text() for text in figure.findobj(Text)]
    lines = [line.get_xydata().tolist() for line in figure.findobj(Line2D)]
    return f"{kind} {texts} {lines}".encode()


@contextmanager
def _outlined() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ltrobust.report.figure_bytes", outline)
        yield


@pytest.fixture(scope="session")
def outlined() -> Callable[[], AbstractContextManager[None]]:
    """While it lasts figures are made but no pictures, most of the time of a tiny report.

    For tests of what is around reports; those in tests/report look at the pictures.
    """
    return _outlined


@pytest.fixture(scope="module")
def light_figures(outlined: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """A module whose reports have no pictures."""
    with outlined():
        yield


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave index.html empty, a third of the time of the rest of a report."""
    monkeypatch.setattr("ltrobust.bench.reports.board_page", lambda *args, **more: "")


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan without estimates of memory, for which networks are built and run."""
    for module in ("estimate", "cells"):
        monkeypatch.setattr(f"ltrobust.bench.{module}.memory_needs", lambda *args: {})


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
