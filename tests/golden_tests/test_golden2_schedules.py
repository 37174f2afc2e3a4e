"""Learning rates of every epoch of the other defenses against the published code."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from golden2_schedules import SCHEDULES
from golden_store import SECOND

from ltrobust.training.schedule import learning_rates

pytestmark = pytest.mark.golden
CASES = SECOND.document("lr_schedules")["schedules"]


def stored_rates(case: dict[str, Any]) -> list[float]:
    """The rate of every epoch, or of every step where a case counts these."""
    if "lr" in case:
        return list(case["lr"])
    changes = [(int(step), rate) for step, rate in case["lr_by_step"].items()]
    ends = [*(step for step, _ in changes[1:]), case["total_steps"]]
    runs = (
        itertools.repeat(rate, end - first)
        for (first, rate), end in zip(changes, ends, strict=True)
    )
    return list(itertools.chain.from_iterable(runs))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_learning_rates(case: dict[str, Any]) -> None:
    assert case["name"] in SCHEDULES, "no schedule of ours stands for this case"
    expected = stored_rates(case)
    schedule = SCHEDULES[case["name"]](case, len(expected))
    # the base rate is not stored: it follows from the first epoch's
    base_lr = expected[0] / learning_rates(schedule, 1.0, len(expected))[0]
    rates = learning_rates(schedule, base_lr, len(expected))
    # rates down to 1e-30 count: the comparison is relative alone
    assert rates == pytest.approx(expected, rel=1e-9, abs=0)
