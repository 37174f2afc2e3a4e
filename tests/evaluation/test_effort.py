"""The checks cost a share of what they check, whatever the model costs."""

from __future__ import annotations

import math
from itertools import pairwise

import planted
import pytest
import torch
from torch import Tensor, nn

from ltrobust.attacks.suite import attack_spec
from ltrobust.data import load_data
from ltrobust.data.augment import to_float
from ltrobust.evaluation.effort import (
    FEW_IMAGES,
    FLOOR,
    FULL,
    SHARE,
    attack_passes,
    effort,
    free_passes,
)
from ltrobust.evaluation.evaluate import Evaluator, TestSet, outcomes
from ltrobust.evaluation.probe import probe
from ltrobust.evaluation.reliability import Evaluation, affordable

DATA = load_data("digits-lt", limit_test=200)
EPS = 0.1


class Counted(nn.Module):
    """Counts the images that go through: forward only as a third."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.passes = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x) * (1 if x.requires_grad else 1 / 3)
        return self.net(x)


@pytest.fixture
def evaluator() -> Evaluator:
    net = planted.nearest_template(to_float(DATA.train_images), DATA.train_labels)
    test = TestSet(DATA.test_images, DATA.test_labels, DATA.test_index)
    return Evaluator(Counted(net), test, num_classes=10, device=torch.device("cpu"))


def test_efforts_grow_with_the_budget_and_stay_within_it() -> None:
    efforts = [effort(float(passes)) for passes in range(0, 40_000, 250)]
    assert all(a.passes <= b.passes for a, b in pairwise(efforts))
    least = efforts[0].passes
    for passes, made in zip(range(0, 40_000, 250), efforts, strict=True):
        assert made.passes <= max(least, passes)
    assert efforts[0].images == FEW_IMAGES
    assert efforts[-1] == effort(math.inf) == FULL


@pytest.mark.parametrize("passes", [0.0, 4000.0, 12_000.0, math.inf])
def test_a_probe_makes_no_more_passes_than_its_effort_says(
    evaluator: Evaluator, passes: float
) -> None:
    made = effort(passes)
    probe(evaluator, eps=EPS, effort=made)
    counted = evaluator.model.model.passes
    # single images, passes in train mode and the first verdicts come on top: few, and never more
    assert counted <= made.passes + 500
    assert counted > 0.1 * made.passes


def test_pgd_on_200_images_pays_for_checks_of_at_most_its_own_cost(evaluator: Evaluator) -> None:
    spec = attack_spec("pgd20", EPS)
    frame = outcomes(evaluator.test, spec, "id", evaluator.run(spec))
    attacked = [Evaluation("pgd20", EPS, "Linf", frame)]
    right = int((frame["fell"] != "clean").sum())
    made = attack_passes(spec, right, int(frame["correct"].sum()), 10)
    assert made == 20 * right
    chosen = affordable(attacked, 1200.0, 10)  # what the floor is worth for a ResNet-18
    evaluator.model.model.passes = 0.0
    probe(evaluator, eps=EPS, effort=chosen)
    assert evaluator.model.model.passes <= SHARE * made + 1200
    assert affordable(attacked, math.inf, 10) == FULL


def test_attacks_that_were_run_are_not_run_again(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = attack_spec("pgd20", EPS)
    fresh = probe(evaluator, eps=EPS)
    evaluator.run(spec)
    ran: list[tuple[str, float]] = []
    run = Evaluator.run

    def noted(self: Evaluator, spec: object, **more: object) -> object:
        ran.append((spec.name, spec.eps))  # type: ignore[attr-defined]
        return run(self, spec, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "run", noted)
    assert probe(evaluator, eps=EPS) == fresh
    assert ("pgd20", EPS) not in ran
    assert ("pgd50", EPS) in ran


def test_small_models_are_checked_in_full_and_large_ones_by_their_operations() -> None:
    images = torch.zeros(4, 3, 32, 32)
    test = TestSet(images, torch.zeros(4, dtype=torch.long), torch.arange(4))
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Flatten(), nn.Linear(65536, 10))
    large = Evaluator(net, test, num_classes=10, device=torch.device("cpu"))
    operations = 2 * (64 * 27 * 1024 + 65536 * 10)
    assert free_passes(large) == pytest.approx(FLOOR / (3 * operations))
    small = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    assert (
        effort(free_passes(Evaluator(small, test, num_classes=10, device=torch.device("cpu"))))
        == FULL
    )


@pytest.mark.parametrize(
    ("name", "passes"),
    [("pgd20", 2000), ("pgd20x3", 20 * (100 + 2 * 40)), ("tpgd10", 10 * (100 + 8 * 40))],
)
def test_passes_of_attacks_with_several_tries(name: str, passes: int) -> None:
    assert attack_passes(attack_spec(name, EPS), 100, 40, 10) == passes
