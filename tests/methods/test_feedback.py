"""DAFA, CGR, FRL and FAAL where they differ from the released code, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ltrobust.methods.dafa import dafa_weights
from ltrobust.methods.faal import class_margins, worst_weights
from torch import Tensor, nn

from ltrobust.combination import find
from ltrobust.config import TrainingAttack
from ltrobust.context import Context, HeldOut
from ltrobust.errors import UserError
from ltrobust.feedback import Outcomes, held_out_outcomes
from ltrobust.overheard import Overheard
from ltrobust.testing import check_method

COUNTS = torch.tensor([50, 20, 5])


def context(**changes: Any) -> Context:
    attack = TrainingAttack(eps=0.1, step_size=0.03, steps=2)
    draw = torch.Generator().manual_seed(0)
    ctx = Context(class_counts=COUNTS, epoch=0, epochs=22, attack=attack, generator=draw)
    return ctx.changed(**changes)


class Small(nn.Sequential):
    """A linear network with the parts that methods ask for."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Flatten(), nn.Linear(16, 3))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def images(n: int = 12) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 4, 4, generator=draw), torch.arange(n) % 3


def test_dafa_lowers_lambda_until_no_weight_is_too_small() -> None:
    similarity = torch.full((50, 50), 1 / 50).fill_diagonal_(0.9)
    similarity[0, 0] = 0.95
    similarity[1:, 0] = 0.5
    assert dafa_weights(similarity, 1.0).min() < 0
    assert dafa_weights(similarity, 1.0, 0.25).min() == pytest.approx(0.25)


def test_dafa_sets_its_weights_once_and_radii_follow_them() -> None:
    method = find("pgd-at+dafa")(COUNTS, **{"dafa.warm_up": 0.5})
    net, (x, y) = Small(), images()
    for epoch in (9, 10, 11):
        ctx = context(epoch=epoch)
        x_adv = method.attack(net, x, y, ctx)
        method.loss(net, x, y, x_adv, ctx)
        method.after_step(net, x, y, x_adv, ctx)
        method.on_epoch_end(ctx)
        weights = method.class_weights  # type: ignore[attr-defined]
        assert bool((weights == 1).all()) == (epoch < 10)
        if epoch == 11:
            change = (x_adv - x).abs().flatten(1).amax(1)
            assert torch.all(change <= 0.1 * weights[y] + 1e-6)
            assert change.max() > 0.1


def test_the_released_second_step_ends_in_the_plain_ball() -> None:
    method = find("pgd-at+dafa")(COUNTS, **{"dafa.double_step": True})
    method.load_state_dict({"dafa.class_weights": torch.tensor([0.5, 1.0, 1.5])})
    net, (x, y) = Small(), images()
    change = (method.attack(net, x, y, context()) - x).abs().flatten(1).amax(1)
    assert change.max() <= 0.1 + 1e-6
    assert change[y == 0].max() > 0.05


@pytest.mark.parametrize("modifier", ["dafa", "faal"])
def test_weights_of_images_need_terms(modifier: str) -> None:
    with pytest.raises(UserError, match=f"{modifier} weighs images"):
        find(f"taet+{modifier}")


def test_frl_refuses_classes_of_one_image() -> None:
    with pytest.raises(UserError, match="of class 2 there is 1") as error:
        find("pgd-at+frl")(torch.tensor([50, 20, 1]))
    assert "\n" not in str(error.value)


def test_frl_moves_towards_the_class_that_is_worse() -> None:
    method = find("pgd-at+frl")(COUNTS)
    x, y = images()
    net = Small()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.tensor([1.0, 1.0, -1.0]))
    method.on_epoch_start(context(model=net, held_out=HeldOut(x, y)))
    natural = method.lambdas[0]  # type: ignore[attr-defined]
    assert natural[0] == 0
    assert natural[2] > 0


def test_errors_of_classes_without_images_are_the_mean_of_the_others() -> None:
    labels, clean, attacked = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 0], [0, 1, 0, 0]])
    natural, boundary = Outcomes(labels, clean, attacked, torch.zeros(4, 1)).errors(3)
    assert natural.tolist() == [0, 0.25, 0.5]
    assert boundary.tolist() == [0.5, 0.5, 0.5]


def test_a_class_without_images_has_no_robust_accuracy() -> None:
    labels, attacked = torch.tensor([[0, 0, 2, 2], [0, 1, 2, 2]])
    found = Outcomes(labels, labels, attacked, torch.zeros(4, 1)).robust_accuracy(3)
    assert found.isnan().tolist() == [False, True, False]
    assert found[[0, 2]].tolist() == [0.5, 1.0]


def test_cgr_looks_at_held_out_images_every_eleventh_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, looked = find("cgr")(COUNTS), []
    x, y = images()

    def look(*arguments: Any, **settings: Any) -> Outcomes:
        looked.append(epoch)
        return held_out_outcomes(*arguments, **settings)

    monkeypatch.setattr("ltrobust.methods.cgr.held_out_outcomes", look)
    for epoch in range(8):
        ctx = context(epoch=epoch, epochs=22, model=Small(), held_out=HeldOut(x, y))
        method.on_epoch_end(ctx)
    assert looked == [1, 3, 5, 7]


def test_cgr_has_fewer_neighbours_than_classes() -> None:
    method = find("cgr")(torch.tensor([8, 4]), graph_topk=3)
    x, y = images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Small()
        net[1] = nn.Linear(16, 2)
    ctx = context(epoch=1, epochs=22, model=net, held_out=HeldOut(x, y % 2))
    method.on_epoch_end(ctx.changed(class_counts=torch.tensor([8, 4])))
    assert method.state_dict()["graph"].shape == (2, 2)


def test_cgr_starts_within_the_radius_of_the_class() -> None:
    method = find("cgr")(COUNTS)
    x, y = images()
    seen: list[Tensor] = []
    net = Small()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.attack(net, x, y, context(epoch=0))
    assert all(torch.equal(passed, x) for passed in seen)


def test_one_term_per_class_unless_released() -> None:
    logits = torch.tensor([[0.0, 2.0, 0.0]] * 5 + [[0.0, 0.0, 0.5]])
    labels = torch.tensor([0] * 5 + [1])
    margins, shares = class_margins(logits, labels)
    assert margins[2] == -1
    assert shares.tolist() == pytest.approx([5 / 6, 1 / 6, 0])
    one, many = worst_weights(margins, 0.5), worst_weights(margins * shares, 0.5)
    assert one.argmax() == many.argmax() == 0
    assert one.argmin() == 2
    assert many[2] > many[1] / 2


@pytest.mark.parametrize("radius", [0.0, 1e-4, 0.5, 3.0])
def test_weights_lie_on_the_ball(radius: float) -> None:
    gains = torch.rand(100, generator=torch.Generator().manual_seed(2))
    weights = worst_weights(gains, radius)
    assert weights.sum() == pytest.approx(1)
    divergence = -(weights * 100).log().mean()
    assert float(divergence) == pytest.approx(radius, abs=1e-6)


def test_equal_gains_have_equal_weights() -> None:
    assert torch.allclose(worst_weights(torch.zeros(4), 0.5), torch.full((4,), 0.25).double())


def test_overheard_logits_cost_no_pass() -> None:
    net, (x, _) = Small(), images()
    heard = Overheard(net, x)
    logits = heard(x)
    assert heard.attacked() is not logits
    assert torch.equal(heard.attacked(), logits)
    assert len(heard.passed) == 1
    silent = Overheard(net.train(), x)
    assert torch.equal(silent.attacked(), logits)
    assert net.training


def test_outcomes_see_through_the_adjustment() -> None:
    class Turned(type(find("pgd-at")(COUNTS))):  # type: ignore[misc]
        def adjust(self, logits: Tensor) -> Tensor:
            return -logits

    x, y = images()
    net, ctx = Small(), context()
    ctx = ctx.changed(model=net, held_out=HeldOut(x, y))
    found = held_out_outcomes(Turned(COUNTS), ctx, steps=2)
    assert torch.equal(found.clean, (-net(x)).argmax(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("trades+dafa", {"dafa.attacked_first": True, "dafa.negative_weights": True}),
        ("cgr", {"base": "at", "wasted_clean": True, "eps_lambda": 0.25}),
        ("trades+faal", {"faal.sum_over_images": True, "faal.attacked_first": True}),
    ],
)
def test_variants_conform(name: str, options: dict[str, Any]) -> None:
    check_method(name, options=options, max_change=0.3)
