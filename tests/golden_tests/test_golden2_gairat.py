"""GAIRAT's schedules, of its Lambda and of its learning rate, against the published code."""

from __future__ import annotations

import math
from typing import Any

import pytest
from golden_store import SECOND
from ltrobust.methods.gairat import GAIRAT

from ltrobust.losses import gairat_offset
from ltrobust.training.schedule import Schedule, learning_rates

pytestmark = pytest.mark.golden
WIDE = 110
"""Runs of so many epochs follow the code's schedule for its wide network, others the ResNet's."""
RATES = {case["name"]: case for case in SECOND.document("lr_schedules")["schedules"]}


@pytest.mark.parametrize(
    "case",
    SECOND.document("state_updates")["gairat"]["cases"],
    ids=lambda case: f"{case['epochs']}-{case['schedule']}",
)
def test_offset(case: dict[str, Any]) -> None:
    epochs, schedule = case["epochs"], case["schedule"]
    first = 60 if epochs >= WIDE else 30
    start = case["Lambda_max"]
    assert schedule in ("fixed", "linear", "piecewise")
    ours = [
        gairat_offset(
            number,
            epochs,
            first=first,
            offset=case["Lambda"],
            start=start if schedule == "linear" else None,
        )
        for number in range(1, epochs + 1)
    ]
    stored = [math.inf if value is None else value for value in case["Lambda_per_epoch"]]
    if schedule == "linear":
        assert ours == pytest.approx(stored, rel=1e-9)
    else:  # before the weights begin, Lambda has no effect: the piecewise one is a fixed one
        before = math.inf if start is None else start
        assert stored == [before if math.isinf(value) else value for value in ours]


@pytest.mark.parametrize("name", ["gairat_wrn", "gairat_resnet"])
def test_learning_rates(name: str) -> None:
    expected = RATES[name]["lr"]
    assert RATES[name]["first_epoch"] == 1
    epochs = len(expected)
    assert GAIRAT.recipe is not None
    schedule = GAIRAT.recipe.recipe.schedule
    if epochs < WIDE:
        milestones = (round(0.3 * epochs), round(0.6 * epochs))
        schedule = Schedule(
            kind="multistep", milestones=milestones, counted_from=1, published_epochs=epochs
        )
    rates = learning_rates(schedule, GAIRAT.recipe.recipe.lr, epochs)
    assert rates == pytest.approx(expected, rel=1e-9, abs=0)
