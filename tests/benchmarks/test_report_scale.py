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

from ltrobust.report import figure_digests
from ltrobust.report.board import make_board
from ltrobust.report.sections import build_sections
from ltrobust.report.tables import leaderboard_table

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


def calls(study: ModuleType, settings: int) -> int:
    """Function calls that the board, a table and the page of three runs a setting take."""
    tables = study.synthetic(3 * settings, settings, epochs=3)
    profile = cProfile.Profile()
    with profile:
        board = make_board(
            tables.metrics, tables.per_class, tables.histories, tables.comparisons, tables.confusion
        )
        assert len(board.settings) == settings
        for setting in board.settings:
            leaderboard_table(setting)
        build_sections(board)
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined]


def test_calls_grow_no_faster_than_runs(study: ModuleType) -> None:
    calls(study, 2)  # what is only done once
    few, many = calls(study, 8), calls(study, 32)
    assert many / few < 1.1 * 32 / 8


def test_unchanged_settings_are_not_drawn_again(study: ModuleType) -> None:
    tables = study.synthetic(6, 2, epochs=3)
    digests = figure_digests(make_board(tables.metrics, tables.per_class, tables.histories))
    assert digests == figure_digests(
        make_board(tables.metrics, tables.per_class, dict(tables.histories))
    )
    changed = tables.metrics.copy()
    changed.loc[changed["dataset"] == "svhn-lt", "tail"] *= 0.9
    others = figure_digests(make_board(changed, tables.per_class, tables.histories))
    same = {place for place, digest in digests.items() if others[place] == digest}
    redrawn = digests.keys() - same
    assert {name for name, _ in redrawn} == {"balance", "attacks"}  # that show the tail
    assert len({ending for _, ending in redrawn}) == 1
    assert {ending for _, ending in same} == {ending for _, ending in digests}
