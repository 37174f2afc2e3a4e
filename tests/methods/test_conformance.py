"""One conformance test over the whole registry, and proof that it catches what it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.combination import SETS
from ltrobust.errors import UserError
from ltrobust.losses import cross_entropy_sum
from ltrobust.method import METHODS, Citation, Context, Method, load_builtin_methods
from ltrobust.method import register_method as register
from ltrobust.testing import check_method

load_builtin_methods()
NOBODY = Citation(authors="Nobody", title="None", venue="none", year=2000)
PAPER_OPTIONS = {
    f"{name} as published": (name, dict(METHODS.get(name).recipe.options))  # type: ignore[union-attr]
    for name in METHODS
    if METHODS.get(name).recipe and METHODS.get(name).recipe.options  # type: ignore[union-attr]
}
SMALLER = {"adt-expam": {"width": 8}, "las-at": {"strategy": "small-cnn"}}
"""Sizes of networks beside the classifier, in place of the published ones."""
SHORTER = {"frl": {"feedback_steps": 2}, "cgr": {"feedback_steps": 2}}
"""Attacks on held-out images."""
CASES = {name: (name, {**SMALLER.get(name, {}), **SHORTER.get(name, {})}) for name in METHODS} | {
    case: (name, {**options, **SMALLER.get(name, {})})
    for case, (name, options) in PAPER_OPTIONS.items()
}
BEYOND_EPS = {
    "robustlt": 0.2,
    "udr": 0.2,
    "cfa": 0.2,
    "dafa": 0.2,
    "frl": 0.3,
    "cgr": 0.2,
    "avmixup": 0.2,
    "las-at": 0.19,
    "mma": 0.16,
}
"""How far the attacks go that exceed eps by design; on digits eps is 0.1."""


KINDS = {
    *("cfol", "gairat", "reat", "plain"),
    *("awp", "ema", "drw", "robustlt"),
    *("tau-norm", "tde"),
}
"""Those of each kind that do what no other does, where it is quick: state, samplers, heads."""
SLOW = {
    case
    for case, (name, _) in CASES.items()
    if case in PAPER_OPTIONS or name not in {*SETS["core"], *KINDS}
}
"""The others, and quirks: the golden steps hold them, this adds resuming with them."""


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in CASES]
)
def test_every_registered_method_conforms(case: str) -> None:
    name, options = CASES[case]
    check_method(name, options=options, max_change=BEYOND_EPS.get(name))


@dataclass
class Good(Method):
    """A defense without faults, to be broken in one place at a time."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        return F.cross_entropy(model(x_adv), y)


@dataclass
class NotFinite(Good):
    """Divides by the number of images of another class in the batch."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        return super().loss(model, x, y, x_adv, ctx) / (y != y[0]).sum()


class TwoLayers(nn.Module):
    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.used = nn.Linear(in_features, num_classes)
        self.unused = nn.Linear(in_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@dataclass
class Unreached(Good):
    """Has a layer that nothing uses."""

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        return TwoLayers(in_features, num_classes)


@dataclass
class TooFar(Good):
    """Attacks beyond eps."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return (x + 2 * ctx.attack.eps).clamp(0, 1)


@dataclass
class OutOfRange(Good):
    """Leaves [0, 1]."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return x - ctx.attack.eps


@dataclass
class LeftInEval(Good):
    """Forgets to go back to train mode."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        model.eval()
        return super().attack(model, x, y, ctx)


@dataclass
class LeavesGradients(Good):
    """Lets its attack write into the parameters' gradients."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        F.cross_entropy(model(x), y).backward()
        return x.clone()


@dataclass
class GlobalNoise(Good):
    """Draws from torch's global generator."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return (x + ctx.attack.eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)


@dataclass
class Forgetful(Good):
    """Keeps a number over epochs that it does not save."""

    def on_epoch_end(self, ctx: Context) -> None:
        self.factor = getattr(self, "factor", 1.0) / 2

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        return getattr(self, "factor", 1.0) * super().loss(model, x, y, x_adv, ctx)


@dataclass
class Blindfold(Good):
    """Hides its logits' gradient from attacks."""

    def adjust(self, logits: Tensor) -> Tensor:
        return logits.detach()


@dataclass
class Crowd(Good):
    """Centres the logits over the batch at inference."""

    def adjust(self, logits: Tensor) -> Tensor:
        return logits - logits.mean(0)


@dataclass
class TenClasses(Good):
    """Assumes ten classes."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        shares = model(x_adv).softmax(1)
        beyond = shares[:, 10:].sum() + 10 - ctx.class_counts[:10].count_nonzero()
        return super().loss(model, x, y, x_adv, ctx) + torch.where(beyond > 0, torch.nan, 0.0)


@dataclass
class Listening(Good):
    """Adds up what its attack sees, which is not all where others have rows of the batch."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        self.seen = torch.zeros(())

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            self.seen = self.seen + logits.detach().abs().sum()
            return cross_entropy_sum(logits, labels)

        return ctx.pgd(model, x, y, loss)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        return (1 + 0.01 * torch.sin(self.seen)) * super().loss(model, x, y, x_adv, ctx)


@dataclass
class Undocumented(Good):
    def adjust(self, logits: Tensor) -> Tensor:
        return logits


@pytest.fixture
def registered() -> Iterator[Callable[[type[Method]], str]]:
    def add(cls: type[Method]) -> str:
        register("fixture-method", paper=NOBODY)(cls)
        return "fixture-method"

    yield add
    METHODS.discard("fixture-method")


def test_the_unbroken_example_conforms(registered: Any) -> None:
    check_method(registered(Good))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NotFinite, "its loss is inf"),
        (Unreached, "no gradient ever reaches linear.unused.bias, linear.unused.weight"),
        (TooFar, "changes pixels by 0.2"),
        (OutOfRange, r"leaves \[0, 1\]"),
        (LeftInEval, "leaves the model changed"),
        (LeavesGradients, "leaves the model changed"),
        (GlobalNoise, "draw from ctx.generator only"),
        (Forgetful, "resumed after epoch 1 it ends elsewhere"),
        (Blindfold, "attacks cannot see through it"),
        (Crowd, "mixes the images"),
        (TenClasses, "nan with 2 classes"),
        (Listening, "attack shared out among devices it ends with other weights"),
        (Undocumented, "has no docstring"),
    ],
)
def test_each_fault_is_found_and_named(registered: Any, cls: type[Method], message: str) -> None:
    with pytest.raises(AssertionError, match=f"method fixture-method: .*{message}"):
        check_method(registered(cls))


def test_a_wider_attack_is_allowed_when_its_author_says_so(registered: Any) -> None:
    check_method(registered(TooFar), max_change=0.2)


def test_a_mistyped_name_is_the_users_error() -> None:
    with pytest.raises(UserError, match="did you mean 'trades'"):
        check_method("tradse")
