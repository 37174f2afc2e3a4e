"""Defenses that keep something beside the network: generator, strategy, margins, class weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ltrobust.methods.adt import ADT
from ltrobust.methods.adt_expam import ADTExpAM
from ltrobust.methods.cfol import CFOL
from ltrobust.methods.las_at import LASAT
from ltrobust.methods.mma import MMA
from torch import Tensor, nn

from ltrobust.config import TrainingAttack
from ltrobust.context import Context
from ltrobust.errors import UserError
from ltrobust.losses import label_smoothing_loss, soft_logit_margin
from ltrobust.method import Method
from ltrobust.models import build_model
from ltrobust.seeds import generator
from ltrobust.training.engine import TrainingModel
from ltrobust.training.step import train_step

COUNTS = torch.tensor([9, 5, 2])
SIZE = 16


def images() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(COUNTS)[:SIZE]
    return torch.rand(SIZE, 1, 8, 8, generator=draw), y


def network() -> TrainingModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TrainingModel(
            build_model("small-cnn", num_classes=3, in_channels=1, image_size=8), "fp32"
        )


def context(**changes: Any) -> Context:
    made = Context(
        class_counts=COUNTS,
        epoch=0,
        epochs=2,
        attack=TrainingAttack(eps=0.1, step_size=0.025, steps=10),
        generator=generator("cpu", 0, "attack", 0),
        sampling=generator("cpu", 0, "sampling", 0),
        index=torch.arange(SIZE),
        lr=0.1,
    )
    return made.changed(**changes)


def attacked(method: Method, **changes: Any) -> Tensor:
    x, y = images()
    return method.attack(network().train(), x, y, context(**changes))


@pytest.mark.parametrize("method", [ADT(COUNTS), ADTExpAM(COUNTS)])
def test_radii_of_modifiers_reach_attacks_that_are_no_pgd(method: Method) -> None:
    factors = torch.linspace(0.1, 1.5, SIZE)
    x, _ = images()
    change = (attacked(method, eps_factor=factors) - x).abs().flatten(1).amax(1)
    assert (change <= 0.1 * factors + 1e-6).all()
    assert change[-1] > 0.05


@pytest.mark.parametrize("method", [ADT, ADTExpAM, LASAT, MMA])
def test_attacks_in_pieces_are_attacks_of_the_whole_batch(method: type[Method]) -> None:
    whole, pieces = attacked(method(COUNTS)), attacked(method(COUNTS), micro_batch=5)
    assert (whole - pieces).abs().max() < 1e-4


def test_cleared_gradients_find_other_images_than_kept_ones() -> None:
    one, other = attacked(ADT(COUNTS)), attacked(ADT(COUNTS, kept_gradients=True))
    assert ((one - other).abs() > 1e-3).float().mean() > 0.1


def test_the_generator_learns_to_mislead() -> None:
    method = ADTExpAM(COUNTS, generator_lr=0.01, entropy=0.0)
    model, (x, y) = network(), images()
    losses = [float(train_step(model, method, x, y, context()).detach()) for _ in range(40)]
    assert losses[-1] > losses[0] + 0.05  # the classifier itself is never moved


def test_images_rest_when_their_steps_are_done() -> None:
    method = LASAT(COUNTS)
    radius, steps, size = torch.tensor([12, 0]), torch.tensor([0, 11]), torch.tensor([1, 1])
    every = [torch.where(torch.arange(SIZE) < 8, *pair) for pair in (radius, steps, size)]
    method.actions = lambda scores, ctx: every  # type: ignore[method-assign]
    x, _ = images()
    none = TrainingAttack(eps=0.1, step_size=0.025, steps=10, start="none")
    change = (attacked(method, attack=none) - x).abs().flatten(1).amax(1)
    # 3 steps of 2/8 eps within 15/8 eps, and 14 steps of 2/8 eps within 3/8 eps
    assert torch.allclose(change[:8], torch.tensor(0.075), atol=1e-6)
    assert torch.allclose(change[8:], torch.tensor(0.0375), atol=1e-6)


def test_the_strategy_takes_to_what_pays() -> None:
    method = LASAT(
        COUNTS, eps_choices=[3, 15], steps_choices=[3], step_size_choices=[1], strategy_lr=0.3
    )
    drawn: list[Tensor] = []
    draw = method.actions

    def recorded(scores: tuple[Tensor, ...], ctx: Context) -> list[Tensor]:
        drawn.append(draw(scores, ctx)[0])
        return [drawn[-1], *draw(scores, ctx)[1:]]

    method.actions = recorded  # type: ignore[method-assign]
    # pays only when most radii are large
    method._rewarded = lambda *_: drawn[-1].float().mean() - 0.5  # type: ignore[method-assign]
    ctx = context(batch=0)
    x, y = images()
    model = network().train()
    for _ in range(30):
        method.attack(model, x, y, ctx)
    assert torch.stack(drawn[-6:]).float().mean() > 0.9


def test_the_strategy_learns_every_twentieth_batch() -> None:
    method = LASAT(COUNTS, strategy_lr=1.0)
    model, (x, y) = network().train(), images()
    learned = []
    for batch in range(21):
        method.reward = None
        one = TrainingAttack(eps=0.1, step_size=0.1, steps=1)
        method.attack(model, x, y, context(batch=batch, attack=one))
        learned.append(method.reward is not None)
    assert [n for n, done in enumerate(learned) if done] == [0, 20]


def test_a_strategy_without_choices_is_the_users_error() -> None:
    with pytest.raises(UserError, match="eps_choices"):
        LASAT(COUNTS, eps_choices=[])
    with pytest.raises(UserError, match="interval 0"):
        LASAT(COUNTS, interval=0)


class Brightness(nn.Module):
    """Two classes, parted where the mean is a half; an image's margin is known."""

    def forward(self, x: Tensor) -> Tensor:
        score = 20 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


def test_margins_are_found_and_remembered() -> None:
    method = MMA(torch.tensor([2, 3]))
    levels = torch.tensor([0.45, 0.3, 0.52, 0.9, 0.4])
    x = levels.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    y = torch.tensor([0, 0, 1, 1, 1])
    ctx = context(index=torch.tensor([4, 3, 2, 1, 0]), class_counts=torch.tensor([2, 3]))
    for _ in range(2):  # the second time from the remembered radii
        x_adv = method.attack(Brightness(), x, y, ctx)
    assert method.margins is not None
    found = method.margins.flip(0)
    end = 0.1 * method.d_max * method.search_max
    assert torch.allclose(found, torch.tensor([0.05, end, 0.02, end, 0.0]), atol=2e-3)
    assert torch.allclose(x_adv[0], torch.tensor(0.5), atol=2e-3)
    assert torch.equal(x_adv[4], x[4])
    # beyond d_max: no loss; wrong: loss where it stands
    terms = method.terms(Brightness(), x, y, x_adv, ctx)
    assert ((terms["attacked"] > 0) == torch.tensor([True, False, True, False, True])).all()
    fresh = MMA(torch.tensor([2, 3]))
    fresh.load_state_dict(method.state_dict())
    assert fresh.margins is method.margins


def test_judging_in_train_mode_moves_the_statistics_of_every_pass_once() -> None:
    model, (x, y) = network(), images()
    train_step(model, MMA(COUNTS, train_mode=True, search_steps=4), x, y, context())
    moved = int(model.net.bn1.num_batches_tracked)  # type: ignore[operator,arg-type,union-attr]
    right = bool((soft_logit_margin(network().train()(x), y) < 0).any())
    assert moved == (1 + 1 + 4 + 1 if right else 2)
    model = network()
    train_step(model, MMA(COUNTS), x, y, context())
    assert int(model.net.bn1.num_batches_tracked) == 2  # type: ignore[operator,arg-type,union-attr]


def test_missed_classes_are_drawn_more_often() -> None:
    method = CFOL(COUNTS, eta=0.01)
    labels = torch.arange(3).repeat_interleave(COUNTS)[
        torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))
    ]
    sampler = method.sampler(labels, context())
    assert len(sampler) == SIZE
    drawn = torch.bincount(labels[sampler.take(6000)], minlength=3) / 6000
    assert torch.allclose(drawn, torch.tensor(1 / 3), atol=0.03)
    for _ in range(100):
        method.update(torch.tensor([2, 2, 0]), torch.tensor([1.0, 1.0, 0.0]))
    drawn = torch.bincount(labels[sampler.take(6000)], minlength=3) / 6000
    assert drawn[2] > 0.6  # the same sampler: within an epoch
    seen = sampler.take(2000)
    assert set(seen.tolist()) == set(range(SIZE))


class Valley(nn.Module):
    """Two classes; the second is likeliest where the mean is 0.53."""

    def forward(self, x: Tensor) -> Tensor:
        score = -1000 * (x.flatten(1).mean(1) - 0.53) ** 2
        return torch.stack([torch.zeros_like(score), score], 1)


def test_the_best_step_of_a_batch_may_come_before_the_last() -> None:
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.zeros(4, dtype=torch.int64)
    two = TrainingAttack(eps=0.1, step_size=0.05, steps=2, start="none")

    def mean(method: CFOL) -> float:
        return float(method.attack(Valley(), x, y, context(attack=two)).mean())

    assert mean(CFOL(COUNTS)) == pytest.approx(0.5)  # there and back
    assert mean(CFOL(COUNTS, best_of_steps=True)) == pytest.approx(0.55)


def test_losses_of_margins_and_shares() -> None:
    z, y = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    shares = z.softmax(1).gather(1, y[:, None])[:, 0]
    assert torch.allclose(soft_logit_margin(z, y), (1 / shares - 1).log())
    target = torch.full_like(z, 0.1)
    target[[0, 1], y] = 0.8
    expected = -(target * z.log_softmax(1)).sum(1)
    assert torch.allclose(label_smoothing_loss(z, y, mass=0.8, reduction="none"), expected)
