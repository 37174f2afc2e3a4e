"""The simulation that docs/cluster.md takes its figures from."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "studies" / "many_runs.py"


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("many_runs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["many_runs"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["many_runs"]


def test_a_run_without_kills_takes_its_work_and_its_start(study: ModuleType) -> None:
    assert study.one_run(500.0, study.Site(start=40.0), random.Random(0)) == (540.0, 0.0, 0)


@pytest.mark.parametrize(
    ("done", "save_every", "epochs"),
    [(50.0, 0.0, 51), (50.0, 2.0, 51), (50.0, 20.0, 42), (98.0, 20.0, 100), (50.0, math.inf, 0)],
)
def test_a_kill_leaves_whole_saved_epochs(
    study: ModuleType, done: float, save_every: float, epochs: int
) -> None:
    # 97 s of training in 100 epochs: 2 s are three of them, 20 s are 21
    assert study.saved(done, 100.0, save_every) == pytest.approx(0.97 * epochs)


def test_what_is_lost_is_done_again_and_nothing_else(study: ModuleType) -> None:
    site = study.Site(between_stops=300.0, save_every=50.0, start=4.0, requeue=10.0)
    took, lost, stops = study.one_run(1000.0, site, random.Random(1))
    assert stops > 0
    assert took == pytest.approx(1000.0 + lost + 4.0 + 14.0 * stops)


def test_longest_first_is_near_the_least_time(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SEEDS", 1)
    longest, plan = study.mean(study.Site()), study.mean(study.Site(order="plan"))
    assert 1.0 < longest.ratio < 1.01 < plan.ratio
    assert (longest.twice, longest.stops) == (0.0, 0)
    often = study.Site(between_stops=4 * study.HOUR)
    never = replace(often, save_every=math.inf)
    assert longest.ratio < study.mean(often).ratio < 1.1 < study.mean(never).ratio


def test_the_page_shows_what_the_study_finds(study: ModuleType) -> None:
    shown = (ROOT / "docs" / "cluster.md").read_text().split("<!-- many_runs -->\n")[1]
    found = study.table({name: study.mean(site) for name, site in study.SITES.items()})
    assert shown.startswith(f"{found}\n<!-- /many_runs -->")
