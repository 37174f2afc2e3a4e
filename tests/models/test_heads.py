"""Properties of the heads that stored numbers do not cover."""

from __future__ import annotations

import torch
from torch import nn

from ltrobust.models.heads import CosineHead, PriorShift, TrainingTemperature


def test_cosine_head_ignores_the_length_of_a_feature_vector() -> None:
    head = CosineHead(8, 3, gamma=1 / 32)
    features = torch.randn(4, 8)
    assert torch.allclose(head(features), head(7 * features), atol=1e-6)
    assert head(features).abs().max() < 1


def test_cosine_head_of_a_dead_feature_vector_is_zero_with_finite_gradients() -> None:
    head = CosineHead(8, 3, gamma=1 / 32)
    features = torch.zeros(2, 8, requires_grad=True)
    head(features).sum().backward()
    assert not head(features).any()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_adjustments_by_class_counts_add_nothing_to_a_checkpoint() -> None:
    head = PriorShift(nn.Linear(8, 3), torch.tensor([5, 500, 50]), tau=1.0)
    assert set(head.state_dict()) == {"head.weight", "head.bias"}
    assert head(torch.zeros(1, 8)).argmax().item() == 0


def test_training_temperature_is_off_in_eval_mode() -> None:
    inner = nn.Linear(8, 3)
    head = TrainingTemperature(inner, torch.tensor([5, 500, 50]), tau=1.0)
    features = torch.randn(2, 8)
    assert torch.equal(head.eval()(features), inner(features))
    assert torch.allclose(head.train()(features)[:, 0], inner(features)[:, 0] / 100)
