"""Learning rates of every epoch, and RobustLT's budgets, against the published code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_store import assert_close, document, each_case
from golden_table import SCHEDULES

from ltrobust.attacks.classwise_eps import classwise_epsilon, intensity
from ltrobust.training.schedule import learning_rates

pytestmark = pytest.mark.golden


@each_case("lr_schedules")
def test_learning_rates(case: dict[str, Any]) -> None:
    expected = case["lr_by_epoch"]
    schedule, start = SCHEDULES[case["name"]](case, len(expected))
    base_lr = case.get("lr0", document("lr_schedules")["lr0"])
    rates = learning_rates(schedule, base_lr, start + len(expected), start=start)
    # rates down to 1e-28 count: the comparison is relative alone
    assert rates == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize("case", document("robustlt")["cases"])
def test_robustlt_budget(case: dict[str, Any]) -> None:
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-7)):
        counts = torch.tensor(case["samples_per_class"], dtype=getattr(torch, precision))
        ours = classwise_epsilon(counts, epsilon=case["epsilon"], alpha=case["robustlt_alpha"])
        assert ours.dtype == counts.dtype
        stored = case[f"classwise_epsilon_max_{precision}"]
        assert_close(ours, torch.tensor(stored, dtype=torch.float64), tolerance)
        mean = (counts / counts.sum() * ours).sum().item()
        stored_mean = case["sample_weighted_mean_of_classwise_epsilon_max"]
        assert mean == pytest.approx(stored_mean, rel=1e-6)
    epochs, beta = case["num_epochs"], case["robustlt_beta"]
    growth = [intensity(epoch, epochs, beta=beta) for epoch in range(1, epochs + 1)]
    assert growth == pytest.approx(case["intensity_by_epoch_from_1"], rel=1e-12, abs=1e-12)
