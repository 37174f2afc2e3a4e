"""How many passes a training step is thought to take, from what methods tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ltrobust.bench.estimate import PASSES, estimate, training_passes
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.method import METHODS, load_builtin_methods
from ltrobust.results.store import SuiteStore

load_builtin_methods()


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("plain", 1.5),
        ("pgd-at", 10 + 1.5),
        ("mart", 10 + 2 * 1.5),
        ("adt", 5 * 10 + 1.5),
        ("adt-expam", 2 + 1.5),
        ("las-at", 1.4 * 10 + 1.5),
        ("mma", 10 + 13 * 1.5),
        ("pgd-at+awp", 10 + 2 * 1.5),
        ("mart+awp+ema", 10 + 4 * 1.5),
    ],
)
def test_passes_of_a_step(name: str, passes: float) -> None:
    settings = make_settings({"methods": name, "device": "cpu"})
    assert training_passes(make_plan(settings).runs[-1].run) == pytest.approx(passes)


def test_every_defense_tells_its_passes_in_words_that_are_read() -> None:
    defenses = [METHODS.get(name) for name in METHODS if METHODS.get(name).kind == "defense"]
    shipped = [cls for cls in defenses if cls.__module__.startswith("ltrobust.methods.")]
    for cls in shipped:
        assert PASSES.match(cls.passes) or cls.passes.isdecimal(), f"{cls.name}: '{cls.passes}'"


def test_time_is_measured_as_the_runs_will_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []

    def probe(*_: object) -> float:
        done.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr("ltrobust.bench.estimate.use_device", done.append, raising=False)
    monkeypatch.setattr("ltrobust.bench.estimate._probe_or_nothing", probe)
    asked = {"methods": "plain", "dataset": "digits-lt", "device": "cpu", "output": tmp_path}
    plan = replace(make_plan(make_settings(asked)), threads=3)
    estimate(plan, SuiteStore(tmp_path), Loader(plan))
    assert done == ["cpu", 3]
