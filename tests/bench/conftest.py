"""The command line in this process, and a small finished suite to look at."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest
from bench_helpers import QUICK, Cli, Finished, Outcome, run_command

from ltrobust.evaluation.effort import Effort
from ltrobust.evaluation.reliability import affordable
from ltrobust.report import Rendered


@pytest.fixture(autouse=True)
def _own_place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default outputs and data directories must not be those of the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    monkeypatch.delenv("LTROBUST_DATA_DIR", raising=False)


@pytest.fixture(autouse=True)
def _own_plugins() -> Iterator[None]:
    """Take out of the registry what a test's plugins put in."""
    from ltrobust.method import METHODS, load_builtin_methods

    load_builtin_methods()
    methods, modules = METHODS.names(), set(sys.modules)
    yield
    for name in set(METHODS.names()) - set(methods):
        METHODS.discard(name)
    for name in set(sys.modules) - modules:
        if name.startswith("ltrobust_plugin_"):
            del sys.modules[name]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process, which saves the imports."""
    from ltrobust.cli import main

    def call(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ltrobust", *map(str, words)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return Outcome(code if isinstance(code, int) else 1, captured.out, captured.err)

    return call


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing, the slowest part of a tiny bench; other tests look at the figures."""
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)


@pytest.fixture
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out tables too: of the reports only metrics.csv and per_class.csv are written."""
    monkeypatch.setattr("ltrobust.bench.collect.render_board", lambda *args: Rendered())
    monkeypatch.setattr("ltrobust.report.terminal_tables", lambda *args: [])


@pytest.fixture
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check reliability with little effort; what the checks find is not looked at here."""
    least = Effort(4, looked_at=4, confirmed=4, attacks=("noise", "fgsm"), queries=2)
    monkeypatch.setattr("ltrobust.bench.checks.affordable", lambda *args: least)


@pytest.fixture
def all_checks(few_checks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that looks at findings, in a file whose other tests do not."""
    monkeypatch.setattr("ltrobust.bench.checks.affordable", affordable)


@pytest.fixture(scope="session", autouse=True)
def _light_collections() -> Iterator[None]:
    """Every run ends with a garbage collection; keep what pytest and imports hold out of it."""
    import ltrobust.bench.runner  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two methods, two attacks, digits-lt."""
    place = tmp_path_factory.mktemp("finished")
    outcome = run_command(
        "bench", "--methods", "pgd-at,at-bsl", *QUICK, "--output", "suite", cwd=place
    )
    return Finished(outcome, place / "suite")
