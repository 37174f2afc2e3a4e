"""GAIRAT's schedule of its Lambda against the published code."""

from __future__ import annotations

import math
from typing import Any

import pytest
from golden_store import SECOND

from ltrobust.losses import gairat_offset

pytestmark = pytest.mark.golden
WIDE = 110
"""Runs of so many epochs follow the code's schedule for its wide network, others the ResNet's."""


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
