"""The random starts that a defense's inner attack draws, and which rows of them a piece gets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ltrobust.config import Start, TrainingAttack
from ltrobust.method import Context

EPS = 0.25


def context(start: Start, *, eps: float = EPS, micro_batch: int | None = None) -> Context:
    return Context(
        class_counts=torch.tensor([2, 1]),
        epoch=0,
        epochs=1,
        attack=TrainingAttack(eps=eps, step_size=0.0, steps=0, start=start),
        generator=torch.Generator().manual_seed(0),
        micro_batch=micro_batch,
    )


def drawn(start: Start, eps: float = EPS) -> Tensor:
    noise = context(start, eps=eps).start(torch.full((50, 3, 8, 8), 0.5))
    assert noise is not None
    return noise


def test_a_uniform_start_fills_the_ball_on_both_sides() -> None:
    noise = drawn("uniform")
    assert -EPS <= noise.min() < -0.99 * EPS
    assert 0.99 * EPS < noise.max() <= EPS
    assert noise.mean().abs() < 0.02 * EPS


def test_a_one_sided_start_only_brightens() -> None:
    noise = drawn("one-sided")
    assert 0 <= noise.min() < 0.01 * EPS
    assert 0.99 * EPS < noise.max() <= EPS
    assert noise.mean().item() == pytest.approx(EPS / 2, rel=0.02)


@pytest.mark.parametrize("eps", [0.0, 8 / 255, 1.0])
def test_a_gaussian_start_has_its_own_size_whatever_eps_is(eps: float) -> None:
    noise = drawn("gaussian", eps)
    assert noise.std().item() == pytest.approx(0.001, rel=0.03)
    assert torch.equal(noise, drawn("gaussian", EPS))


def test_no_start_is_the_image_itself() -> None:
    assert context("none").start(torch.zeros(2, 1, 4, 4)) is None


def test_two_draws_of_one_step_differ() -> None:
    ctx, x = context("uniform"), torch.full((4, 3, 8, 8), 0.5)
    assert not torch.equal(ctx.start(x), ctx.start(x))  # type: ignore[arg-type]


def free(eps_factor: Tensor | None = None, **factors: Tensor) -> Context:
    """A context whose attack is one step of N-FGSM."""
    attack = TrainingAttack(
        eps=0.05, step_size=0.05, steps=1, start="uniform", start_scale=2.0, project=False
    )
    return context("uniform").changed(attack=attack, eps_factor=eps_factor, **factors)


def brighter(z: Tensor, y: Tensor) -> Tensor:
    return z.sum()


def test_without_projection_a_step_leads_from_the_scaled_start_out_of_the_ball() -> None:
    x, y = torch.full((40, 3, 8, 8), 0.5), torch.zeros(40, dtype=torch.int64)
    change = free().pgd(torch.nn.Identity(), x, y, brighter) - x
    assert -0.05 <= change.min() < -0.049
    assert 0.149 < change.max() <= 0.15
    bright = free().pgd(torch.nn.Identity(), torch.full_like(x, 0.95), y, brighter)
    assert bright.max() == 1


def test_without_projection_other_radii_change_start_and_step() -> None:
    x, y = torch.full((2, 3, 40, 40), 0.5), torch.zeros(2, dtype=torch.int64)
    factor = torch.tensor([1.0, 0.5])
    change = free(factor).pgd(torch.nn.Identity(), x, y, brighter) - x
    assert change[0].max() > 0.149
    assert 0.0745 < change[1].max() <= 0.0751
    own_step = free(factor, step_factor=torch.tensor([1.0, 2.0]))
    change = own_step.pgd(torch.nn.Identity(), x, y, brighter) - x
    assert 0.149 < change[1].max() <= 0.151


def test_a_method_that_names_a_radius_keeps_it_whatever_the_recipe_says() -> None:
    x, y = torch.full((4, 3, 8, 8), 0.5), torch.zeros(4, dtype=torch.int64)
    change = free().pgd(torch.nn.Identity(), x, y, brighter, eps=0.05) - x
    assert change.abs().max() <= 0.05 + 1e-6


def test_each_piece_of_a_batch_has_its_own_rows_of_the_start() -> None:
    x, y = torch.full((7, 3, 8, 8), 0.5), torch.zeros(7, dtype=torch.int64)
    model = torch.nn.Identity()
    whole, pieces = (
        context("uniform", micro_batch=size).pgd(model, x, y, lambda z, y: z.sum())
        for size in (None, 3)
    )
    assert torch.equal(pieces, whole)
    assert not torch.equal(whole[0], whole[3])
