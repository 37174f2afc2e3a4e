"""Modifiers on several bases: conformance, independence of their order, and what they change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ltrobust.methods.cfa import CFA, ClassAccuracy
from ltrobust.methods.ema import EMA
from ltrobust.methods.udr import UDR
from torch import Tensor, nn

from ltrobust.combination import find, layers
from ltrobust.config import TrainingAttack
from ltrobust.errors import UserError
from ltrobust.method import Context, Method, load_builtin_methods, total
from ltrobust.testing import check_method
from ltrobust.training.engine import TrainingModel
from ltrobust.training.step import train_step

load_builtin_methods()
COUNTS = torch.tensor([40, 3, 15, 6])
EPS = 0.1
TWICE_EPS = 0.2
"""Of the recipe that conformance is checked with; class-wise radii stay below."""

NAMES = (
    *(f"trades+{name}" for name in ("awp", "ema", "robustlt", "udr", "cfa")),
    "at-bsl+robustlt+awp",
    "taet+cfa",
)
RELEASED = ("trades+awp", "pgd-at+awp+udr", "pgd-at+awp+robustlt", "taet+robustlt", "pgd-at+cfa")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_conformance(name: str) -> None:
    wide = any(part in name for part in ("robustlt", "udr", "cfa"))
    check_method(name, max_change=TWICE_EPS if wide else None)


@pytest.mark.slow  # the golden steps hold the quirks; this adds resuming with them
@pytest.mark.parametrize("name", RELEASED)
def test_conformance_as_released(name: str) -> None:
    options = find(name).recipe.options  # type: ignore[union-attr]
    check_method(name, options=options, max_change=0.5)


class Net(nn.Sequential):
    """A small network with batch norm whose last layer is linear."""

    input_size = None
    head_name = "3"

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(
                nn.Flatten(), nn.Linear(27, 8), nn.BatchNorm1d(8), nn.Linear(8, len(COUNTS))
            )

    @property
    def head(self) -> nn.Module:
        return self[3]

    def features(self, x: Tensor) -> Tensor:
        return self[2](self[1](self[0](x)))


def images() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(12, 3, 3, 3, generator=draw), torch.arange(12) % len(COUNTS)


def context(**changes: Any) -> Context:
    attack = TrainingAttack(eps=EPS, step_size=EPS / 2, steps=3)
    ctx = Context(COUNTS, 4, 10, attack, torch.Generator().manual_seed(2))
    return ctx.changed(index=torch.arange(12), **changes)


def step(name: str, **options: Any) -> tuple[Method, TrainingModel, Tensor]:
    """One step of training; the method, the network after it, and the loss."""
    method = find(name)(COUNTS, **options)
    model = TrainingModel(Net(), "fp32")  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = train_step(model, method, *images(), context(model=model), optimizer)
    return method, model, loss.detach()


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("trades+awp+robustlt", "trades+robustlt+awp"),
        ("at-bsl+robustlt+awp+ema", "at-bsl+ema+awp+robustlt"),
        ("trades+cfa+awp", "trades+awp+cfa"),
        ("pgd-at+udr+robustlt", "pgd-at+robustlt+udr"),
    ],
)
def test_the_order_of_modifiers_does_not_matter(one: str, other: str) -> None:
    (first, model, loss), (second, again, same) = step(one), step(other)
    assert torch.equal(loss, same)
    assert same_weights(model, again)
    state = second.state_dict()
    for key, value in first.state_dict().items():
        assert not isinstance(value, Tensor) or torch.equal(value, state[key]), key
    assert not same_weights(model, step(one.split("+")[0])[1])


@pytest.mark.parametrize("base", ["at-bsl", "trades", "taet", "robal-r"])
def test_the_loss_stays_that_of_the_defense(base: str) -> None:
    x, y = images()
    plain = find(base)(COUNTS)
    model = TrainingModel(Net(), "fp32").train()  # type: ignore[arg-type]
    expected = plain.loss(model, x, y, x + 0.01, context())
    for name in ("awp+ema", "ema+awp", "robustlt", "udr+ema"):
        around = find(f"{base}+{name}")(COUNTS)
        assert torch.equal(around.loss(model, x, y, x + 0.01, context()), expected)
        if plain.has_terms():
            terms = total(around.terms(model, x, y, x + 0.01, context())).mean()
            assert torch.equal(terms, expected)


@pytest.mark.parametrize("base", ["at-bsl", "trades"])
def test_udrs_loss_on_clean_images_is_in_its_loss_and_in_its_terms(base: str) -> None:
    (x, y), plain = images(), find(base)(COUNTS)
    around = find(f"{base}+udr")(COUNTS, **{"udr.natural": 0.5, "udr.scale": 2.0})
    model = TrainingModel(Net(), "fp32").train()  # type: ignore[arg-type]
    clean = torch.nn.functional.cross_entropy(model(x), y)
    expected = 0.5 * clean + 2 * plain.loss(model, x, y, x + 0.01, context())
    assert torch.allclose(around.loss(model, x, y, x + 0.01, context()), expected)
    terms = total(around.terms(model, x, y, x + 0.01, context()))
    assert terms.shape == y.shape
    assert torch.allclose(terms.mean(), expected)


def test_awp_takes_its_gradient_at_worse_weights_and_takes_them_off_again() -> None:
    with_it, without = step("pgd-at+awp", **{"awp.gamma": 0.1}), step("pgd-at")
    assert with_it[2] > without[2]  # the loss at the perturbed weights
    none = step("pgd-at+awp", **{"awp.gamma": 0.0})
    assert same_weights(none[1], without[1])
    late = step("pgd-at+awp", **{"awp.gamma": 0.1, "awp.warmup": 0.5})
    assert same_weights(late[1], without[1])
    frozen = TrainingModel(Net(), "fp32")  # type: ignore[arg-type]
    before = [p.clone() for p in frozen.parameters()]
    train_step(frozen, find("pgd-at+awp")(COUNTS), *images(), context())
    for old, new in zip(before, frozen.parameters(), strict=True):
        assert torch.allclose(old, new, atol=1e-7)


def test_awps_gradient_pass_moves_statistics_only_by_the_rule_of_robustlt() -> None:
    plain = step("pgd-at")[1].net[2].num_batches_tracked  # type: ignore[index]
    kept = step("pgd-at+awp")[1].net[2].num_batches_tracked  # type: ignore[index]
    moved = step("pgd-at+awp", **{"awp.rule": "optimizer"})[1].net[2].num_batches_tracked  # type: ignore[index]
    assert (int(plain), int(kept), int(moved)) == (1, 1, 2)


def test_robustlt_gives_rare_classes_more_and_nothing_in_the_first_epoch() -> None:
    method = find("pgd-at+robustlt")(COUNTS)
    model = TrainingModel(Net(), "fp32")  # type: ignore[arg-type]
    x, y = images()
    x = x * 0.6 + 0.2  # away from 0 and 1
    changed = (method.attack(model, x, y, context(epoch=9)) - x).abs().flatten(1).amax(1)
    by_class = [float(changed[y == c].max()) for c in range(len(COUNTS))]
    assert by_class[0] == pytest.approx(0.7 * EPS, rel=1e-4)
    assert by_class[0] < by_class[2] < by_class[3] < by_class[1]
    assert torch.equal(method.attack(model, x, y, context(epoch=0)), x)


def test_ema_evaluates_the_average_and_forgets_where_it_began() -> None:
    method, model, _ = step("pgd-at+ema", **{"ema.decay": 0.9})
    assert isinstance(method, EMA)
    first = {k: v.clone() for k, v in model.net.state_dict().items()}
    train_step(
        model, method, *images(), context(model=model), torch.optim.SGD(model.parameters(), lr=1.0)
    )
    last, chosen = model.net.state_dict(), method.weights()
    assert chosen is not None
    share = 2 / 11  # of the second step: (1 + 1) / (10 + 1)
    expected = share * first["1.weight"] + (1 - share) * last["1.weight"]
    assert torch.allclose(chosen["1.weight"], expected)
    with pytest.raises(UserError, match=r"ema\.decay must be at least 0 and below 1, not 1"):
        find("pgd-at+ema")(COUNTS, **{"ema.decay": 1.0})


def test_udr_below_one_lets_pixels_out_and_lambda_is_learned_every_tenth_batch() -> None:
    x, y = images()
    x = x * 0.6 + 0.2
    model = TrainingModel(Net(), "fp32")  # type: ignore[arg-type]
    hard, soft = find("pgd-at+udr")(COUNTS), find("pgd-at+udr")(COUNTS, **{"udr.lamda": 0.5})
    plain = find("pgd-at")(COUNTS).attack(model, x, y, context())
    assert torch.allclose(hard.attack(model, x, y, context()), plain, atol=1e-6)
    outside = (soft.attack(model, x, y, context()) - x).abs().max()
    assert EPS + 0.01 < outside < EPS + EPS / 2
    for batch, falls in ((9, False), (10, True)):
        before = float(hard.own_state()["lamda"])  # type: ignore[attr-defined]
        hard.after_step(model, x, y, plain, context(batch=batch))
        assert (float(hard.own_state()["lamda"]) < before) is falls  # type: ignore[attr-defined]


def test_udrs_lambda_stops_at_zero_unless_it_is_released() -> None:
    for floor in (0.0, None):
        method = find("pgd-at+udr")(
            COUNTS, **{"udr.lamda": 0.0, "udr.rate": 5.0, "udr.floor": floor}
        )
        assert isinstance(method, UDR)
        method.gaps = [torch.tensor(0.01)]
        x, y = images()
        method.after_step(nn.Identity(), x, y, x, context())
        assert (float(method.own_state()["lamda"]) < 0) is (floor is None)


def test_cfa_counts_accuracy_by_the_images_of_a_class() -> None:
    accuracy = ClassAccuracy(3)
    labels = torch.tensor([0] * 6 + [1] * 2)
    logits = torch.eye(3)[torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])]
    for equal, expected in ((False, [0.5, 0.5, 0.5]), (True, [3 * 3 / 8, 3 / 8, 0])):
        accuracy.count(logits, labels)
        accuracy.end_epoch(equal_classes=equal)
        assert accuracy.last is not None
        assert accuracy.last.tolist() == expected


def test_cfa_counts_each_image_once_whatever_is_around_it() -> None:
    for name in ("pgd-at+cfa", "pgd-at+cfa+awp", "pgd-at+awp+cfa+ema", "taet+cfa"):
        method, _, _ = step(name)
        cfa = next(layer for layer in layers(method) if isinstance(layer, CFA))
        assert cfa.robust._counts is not None
        assert cfa.robust._counts[1].tolist() == [3, 3, 3, 3]


class ByFeatures(Method):
    """Lets no image through the network as a whole."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        return nn.functional.cross_entropy(model.head(model.features(x_adv)), y)  # type: ignore[operator]


def test_cfa_looks_itself_where_a_base_never_passes_the_attacked_images() -> None:
    cfa = CFA(COUNTS, ByFeatures(COUNTS))
    model = TrainingModel(Net(), "fp32")  # type: ignore[arg-type]
    x, y = images()
    train_step(model, cfa, x, y, context(model=model))
    train_step(model, cfa, x[:4], y[:4], context(model=model))  # not the logits of before
    assert cfa.robust._counts is not None
    assert cfa.robust._counts[1].tolist() == [4, 4, 4, 4]


def test_cfa_averages_only_when_no_class_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    method, model, _ = step("pgd-at+cfa", **{"cfa.threshold": 0.3})
    judged: list[Method] = []

    class Judged:
        def __init__(self, worst: float) -> None:
            self.worst = worst

        def robust_accuracy(self, classes: int) -> Tensor:
            return torch.tensor([torch.nan, self.worst] + [0.9] * (classes - 2))

    for worst, expected in ((0.0, False), (0.29, False), (0.3, True)):

        def look(base: Method, _ctx: Context, *, steps: int, worst: float = worst) -> Judged:
            judged.append(base)
            return Judged(worst)

        monkeypatch.setattr("ltrobust.methods.cfa.held_out_outcomes", look)
        method.on_epoch_end(context(model=model))
        assert (method.weights() is not None) is expected
    assert {type(base).__name__ for base in judged} == {"PGDAT"}
