"""The PGD core: where its images lie, how strong it is, and what it leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

import ltrobust.methods
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_logits, attack_mode, input_gradient, pgd
from ltrobust.method import cross_entropy_sum
from ltrobust.models import build_model

EPS = 0.1


def small_net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model("small-cnn", num_classes=10, in_channels=1, image_size=8)


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    x = torch.rand(count, 1, 8, 8, generator=draw)
    x[0], x[1] = 0.0, 1.0  # at the borders of the image box
    return x, torch.randint(10, (count,), generator=draw)


def attack(model: nn.Module, x: Tensor, y: Tensor, **changes: object) -> Tensor:
    given_ = {"eps": EPS, "step_size": EPS / 4, "steps": 3, "loss": cross_entropy_sum}
    return pgd(model, x, y, **{**given_, **changes})  # type: ignore[arg-type]


def test_eps_zero_gives_the_input_itself() -> None:
    x, y = images()
    start = torch.full_like(x, 0.3)
    assert torch.equal(attack(small_net(), x, y, eps=0.0), x)
    assert torch.equal(attack(small_net(), x, y, eps=0.0, start=start), x)


@given(
    eps=st.floats(0, 1),
    step=st.floats(0, 1),
    steps=st.integers(0, 3),
    offset=st.floats(-1, 1),
    momentum=st.sampled_from([None, 0.5, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_result_is_always_in_the_ball_and_in_the_image_box(
    eps: float, step: float, steps: int, offset: float, momentum: float | None
) -> None:
    x, y = images(3)
    start = torch.full_like(x, offset)
    made = attack(
        small_net(), x, y, eps=eps, step_size=step, steps=steps, start=start, momentum=momentum
    )
    assert (made - x).abs().max() <= eps + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    assert made.shape == x.shape
    assert made.dtype == x.dtype
    assert not made.requires_grad


def test_a_radius_of_its_own_for_each_image_is_kept() -> None:
    x, y = images(3)
    eps = torch.tensor([0.0, 0.05, 0.2]).view(3, 1, 1, 1)
    made = attack(small_net(), x, y, eps=eps, step_size=eps, steps=2)
    change = (made - x).abs().flatten(1).amax(1)
    assert change.tolist() == pytest.approx([0.0, 0.05, 0.2], abs=1e-6)


def test_no_steps_give_the_projected_start_and_never_ask_the_model() -> None:
    x, y = images()
    start = torch.linspace(-1, 1, x.numel()).view_as(x)
    made = attack(nn.Identity(), x, y, steps=0, start=start)
    assert torch.equal(made, torch.clamp(x + start, (x - EPS).clamp(0), (x + EPS).clamp(max=1)))


def test_input_is_left_alone_and_no_start_means_the_clean_image() -> None:
    x, y = images()
    before = x.clone()
    one = attack(small_net(), x, y, steps=1, step_size=EPS)
    assert torch.equal(x, before)
    direction = input_gradient(small_net().eval(), x, y, cross_entropy_sum).sign()
    assert torch.allclose(one, (x + EPS * direction).clamp(0, 1))


def test_more_steps_reach_a_higher_loss_on_average() -> None:
    x, y = images(32)
    model = small_net().eval()

    def reached(steps: int) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(model(attack(model, x, y, steps=steps)), y))

    losses = [reached(steps) for steps in (0, 1, 3, 10, 30)]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]


class Recorder(nn.Module):
    """A linear score whose gradient changes from call to call, to follow the momentum by hand."""

    def __init__(self, gradients: list[list[float]]) -> None:
        super().__init__()
        self.gradients = iter(gradients)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor([next(self.gradients)])


def walk(momentum: float | None) -> list[float]:
    model = Recorder([[4.0, 2.0], [-0.5, 1.0]])
    x, y = torch.full((1, 2), 0.5), torch.tensor([0])
    made = pgd(
        model,
        x,
        y,
        eps=0.4,
        step_size=0.1,
        steps=2,
        loss=lambda scores, _: scores.sum(),
        momentum=momentum,
    )
    return [round(value, 4) for value in made[0].tolist()]


def test_momentum_adds_the_normalised_gradients_of_earlier_steps() -> None:
    # gradients over their mean size: (4, 2) / 3, then (-0.5, 1) / 0.75; their sums are positive
    assert walk(momentum=1.0) == [0.7, 0.7]
    assert walk(momentum=None) == [0.5, 0.7]
    assert walk(momentum=0.1) == [0.5, 0.7]


def test_momentum_survives_a_gradient_of_exact_zeros() -> None:
    x, y = images()
    made = attack(nn.Flatten(), x, y, loss=lambda logits, _: 0 * logits.sum(), momentum=1.0)
    assert torch.equal(made, x)


def test_model_is_left_exactly_as_it_was() -> None:
    model = small_net().train()
    model.bn2.eval()
    model.conv1.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = images()
    attack(model, x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in (model, model.bn1, model.bn2, model.linear)] == [
        True,
        True,
        False,
        True,
    ]
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["conv1.weight"]
    assert all(p.grad is None for p in model.parameters())


def test_gradients_that_were_there_are_kept() -> None:
    model, (x, y) = small_net(), images()
    F.cross_entropy(model(x), y).backward()
    before = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    attack(model, x, y)
    assert all(torch.equal(p.grad, old) for p, old in zip(model.parameters(), before, strict=True))


def test_attack_mode_restores_modes_and_flags_after_an_exception() -> None:
    model = small_net().train()
    model.bn3.eval()
    model.linear.bias.requires_grad_(False)

    def fail_inside() -> None:
        with attack_mode(model):
            assert not any(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert [m for m in model.modules() if not m.training] == [model.bn3]
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["linear.bias"]


def test_attack_works_where_gradients_are_switched_off() -> None:
    model, (x, y) = small_net(), images()
    with torch.no_grad():
        inside = attack(model, x, y)
    assert torch.equal(inside, attack(model, x, y))
    assert not torch.equal(inside, x)


@given(st.integers(0, 10_000), st.floats(0.01, 3.0), st.integers(0, 4))
@settings(deadline=None, max_examples=40)
def test_l2_changes_stay_in_the_ball_and_images_in_range(seed: int, eps: float, steps: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 2, 4, 4, generator=draw).round(decimals=1)
    start = torch.randn(x.shape, generator=draw) * eps
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 4))
    y = torch.tensor([0, 1, 2])
    found = pgd(
        model,
        x,
        y,
        eps=eps,
        step_size=eps / 2,
        steps=steps,
        loss=cross_entropy_sum,
        start=start,
        norm="L2",
    )
    assert bool(((found >= 0) & (found <= 1)).all())
    assert bool(((found - x).flatten(1).norm(dim=1) <= eps * (1 + 1e-5)).all())


def test_l2_step_goes_along_the_gradient_of_each_image() -> None:
    weights = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = weights
    x = torch.full((1, 2), 0.5)

    def away_from_zero(logits: Tensor, _: Tensor) -> Tensor:
        return logits[:, 0].sum()

    found = pgd(
        model,
        x,
        torch.tensor([1]),
        eps=0.1,
        step_size=0.05,
        steps=1,
        loss=away_from_zero,
        norm="L2",
    )
    assert torch.allclose(found - x, 0.05 * torch.tensor([[0.6, 0.8]]), atol=1e-6)


def test_l2_stays_where_the_gradient_vanishes() -> None:
    x = torch.rand(2, 3)
    found = pgd(
        nn.Linear(3, 2),
        x,
        torch.tensor([0, 1]),
        eps=0.1,
        step_size=0.1,
        steps=3,
        loss=lambda logits, _: 0 * logits.sum(),
        norm="L2",
    )
    assert torch.allclose(found, x)


def test_logits_for_an_attack_leave_the_model_as_it_was() -> None:
    net, (x, _) = small_net(), images()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    logits = attack_logits(net.train(), x)
    assert not logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(logits, net.eval()(x))
    train = attack_logits(net, x, "train")
    assert not torch.equal(train, logits)
    assert not net.training


def test_no_method_writes_that_by_hand() -> None:
    """What passes images in an attack's mode without a graph is `attack_logits`."""
    files = Path(ltrobust.methods.__file__).parent.glob("*.py")
    by_hand = [
        file.name for file in files if re.search(r"attack_mode\(.*no_grad", file.read_text())
    ]
    assert by_hand == []
