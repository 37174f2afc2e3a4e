"""RobustLT's budgets where the formula is delicate."""

from __future__ import annotations

import pytest
import torch

from ltrobust.attacks.classwise_eps import classwise_epsilon, intensity


def test_mean_budget_over_training_images_is_the_base_budget_in_any_class_order() -> None:
    counts = torch.tensor([40, 5000, 7, 900], dtype=torch.float64)
    eps = classwise_epsilon(counts, epsilon=0.03, alpha=0.3)
    assert (counts / counts.sum() * eps).sum().item() == pytest.approx(0.03)
    assert eps.argsort().tolist() == [1, 3, 0, 2]


def test_equal_counts_give_every_class_the_base_budget() -> None:
    eps = classwise_epsilon(torch.tensor([50, 50, 50]), epsilon=0.03, alpha=0.3)
    assert eps.tolist() == pytest.approx([0.03] * 3)


def test_first_epoch_is_clean_and_beta_zero_is_always_full() -> None:
    assert intensity(1, 100, beta=0.8) == 0
    assert intensity(100, 100, beta=0.8) == 1
    assert intensity(1, 100, beta=0) == 1
