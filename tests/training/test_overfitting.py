"""Catastrophic overfitting: measured after every epoch of a fast run, told, and marked."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

from ltrobust.config import TrainingAttack
from ltrobust.evaluation.reliability import Finding, findings
from ltrobust.method import METHODS
from ltrobust.models import build_model
from ltrobust.training.overfitting import pgd_accuracy, warning

CHECK = "catastrophic-overfitting"
ATTACK = TrainingAttack(eps=0.1, step_size=0.1, steps=1)


def finding(**columns: list[float]) -> Finding:
    return next(f for f in findings(None, [], pd.DataFrame(columns)) if f.check == CHECK)


def test_a_network_that_beats_its_attack_and_falls_to_pgd_is_flagged() -> None:
    found = finding(train_robust_acc=[0.3, 0.8], train_pgd_acc=[0.2, 0.02])
    assert found.flagged
    assert found.value == pytest.approx(97.5)
    assert "80.0%" in found.explanation
    assert "2.0%" in found.explanation


@pytest.mark.parametrize("pgd", [0.21, 0.5, 0.9])
def test_the_last_epoch_decides_and_a_usual_gap_is_none(pgd: float) -> None:
    found = finding(train_robust_acc=[0.8, 0.8], train_pgd_acc=[0.0, pgd])
    assert not found.flagged
    assert found.value is not None


def test_longer_attacks_and_foreign_models_are_not_checked() -> None:
    assert finding(train_robust_acc=[0.8]).value is None
    unknown = next(f for f in findings(None, []) if f.check == CHECK)
    assert unknown.value is None


def test_the_log_says_so_when_it_happens() -> None:
    assert "catastrophic overfitting: 80.0%" in str(warning(0.02, 0.8))
    assert warning(0.3, 0.8) is None
    assert warning(0.0, 0.0) is None


def test_pgd_accuracy_attacks_what_the_method_adjusts_and_restores_the_mode() -> None:
    """A network that tells brightness by a wide margin stands; by a narrow one it falls."""
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(20).view(40, 1, 1, 1)
    images = images.expand(40, 1, 8, 8).contiguous()
    labels = torch.tensor([0, 1]).repeat(20)
    net = build_model("small-cnn", num_classes=2, in_channels=1, image_size=8)
    method = METHODS.get("pgd-at")(torch.tensor([20, 20]))

    class Brightness(nn.Module):
        input_size = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((1, 2, 3))
            return torch.stack([0.5 - mean, mean - 0.5], 1)

    bright = Brightness().train()
    stands = pgd_accuracy(bright, method, images, labels, ATTACK, seed=0)  # type: ignore[arg-type]
    assert stands == 1.0
    assert bright.training
    wide = ATTACK.model_copy(update={"eps": 0.6})
    assert pgd_accuracy(bright, method, images, labels, wide, seed=0) == 0.0  # type: ignore[arg-type]
    again = [pgd_accuracy(net, method, images, labels, ATTACK, seed=0) for _ in range(2)]
    assert again[0] == again[1]


def test_images_that_stay_on_the_host_are_brought_to_the_network() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    device = torch.device("meta")  # any but the host; nothing comes back from it
    net = build_model("small-cnn", num_classes=2, in_channels=1, image_size=8).to(device)
    method = METHODS.get("pgd-at")(torch.tensor([2, 2]))
    labels = torch.zeros(4, dtype=torch.int64, device=device)
    with pytest.raises((RuntimeError, NotImplementedError), match="copy out of meta"):
        pgd_accuracy(net, method, images, labels, ATTACK, 0)
