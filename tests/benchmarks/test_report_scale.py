"""The work of a report grows with its runs, not with runs times settings."""

from __future__ import annotations

import cProfile
import importlib.util
import pstats
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ltrobust.bench.reports import results_of
from ltrobust.report.sections import build_sections
from ltrobust.report.tables import leaderboard_table
from ltrobust.results.collect import collect
from ltrobust.results.store import SuiteStore

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "report_scale.py"


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("report_scale", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_scale"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["report_scale"]


def calls(study: ModuleType, suite: Path, settings: int) -> int:
    """Function calls that reading, tables, board and page of three runs a setting take."""
    study.write_runs(SuiteStore(suite), range(3 * settings), settings, images=40)
    profile = cProfile.Profile()
    with profile:
        results = results_of(collect([suite]))
        board = results.board
        assert len(board.settings) == settings
        for setting in board.settings:
            leaderboard_table(setting)
        build_sections(board)
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined]


@pytest.mark.slow
def test_calls_grow_no_faster_than_runs(study: ModuleType, tmp_path: Path) -> None:
    calls(study, tmp_path / "first", 2)  # what is only done once
    few, many = calls(study, tmp_path / "few", 4), calls(study, tmp_path / "many", 12)
    assert many / few < 1.1 * 12 / 4


def test_only_the_setting_that_got_a_run_is_drawn_again(study: ModuleType, tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    study.write_runs(suite, range(5), settings=2, images=40)
    study.report_without_figures(suite)
    before = suite.drawn()
    assert len({name for name in before if "svhn" in name}) == len(before) // 2 > 4
    study.write_runs(suite, range(5, 6), settings=2, images=40)  # of SVHN
    study.report_without_figures(suite)
    after = suite.drawn()
    assert after.keys() == before.keys()
    redrawn = {name for name in before if after[name] != before[name]}
    assert redrawn
    assert all("svhn" in name for name in redrawn)
