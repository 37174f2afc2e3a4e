"""CFA: radii, loss weights and weight averaging by class accuracy.

    a_c   = share of class c whose attacked images were classified correctly in the epoch before
    eps_c = (lambda_1 + a_c) eps
    L     = mean[(1 - b_y) natural + b_y divergence],  b_c = t_c / (1 + t_c),
            t_c = (lambda_2 + a_c) beta                 (bases with a divergence, such as TRADES)
    w_avg <- d w_avg + (1 - d) w   once an epoch in which the worst class is robust enough (FAWA)

Wei et al. 2023. Before `begin` eps_c = eps and t_c = beta. The network that is evaluated is the
average; how robust the worst class is, held-out training images say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ltrobust.methods.awp import AT_RECIPE
from ltrobust.methods.ema import Weights, average, network_state
from ltrobust.methods.trades import RECIPE as TRADES_RECIPE
from torch import Tensor, nn

from ltrobust.attacks.pgd import Mode, attack_logits
from ltrobust.combination import layers
from ltrobust.feedback import held_out_outcomes
from ltrobust.method import Citation, Context, PaperRecipe, register_method, total
from ltrobust.modifier import Modifier

RELEASED = {
    "equal_classes": True,
    "clean_pass": True,
    "threshold": 0.24,
}


def _published(options: dict[str, Any], **attack: Any) -> PaperRecipe:
    recipe = AT_RECIPE.recipe  # AWP's on PGD-AT
    chosen = recipe.attack.model_copy(update=attack)
    return PaperRecipe(
        arch="preactresnet18",
        recipe=recipe.model_copy(update={"attack": chosen}),
        options=options,
        checkpoint="best epochs by robust accuracy plus that of the worst class on the test set: "
        "it leaks",
        test_set="balanced (the paper has no long-tailed runs)",
        source="PKU-ML/CFA @ 071f333, train.py",
    )


@register_method(
    "cfa",
    paper=Citation(
        authors="Z. Wei, Y. Wang, Y. Guo, Y. Wang",
        title="CFA: Class-wise Calibrated Fair Adversarial Training",
        venue="CVPR",
        year=2023,
        url="https://arxiv.org/abs/2303.14460",
    ),
    recipes={
        "pgd-at": _published({"cfa.mode": "train"}),
        "trades": _published(TRADES_RECIPE.options, start="gaussian"),
    },
    released=RELEASED,
    quirks=(
        "equal_classes: the release takes C correct_c / N for the accuracy of class c, which "
        "holds for classes of equal size; with CIFAR-10-LT at IR 50 the largest class reads 3.57 "
        "times its accuracy and the smallest 0.07 times, so that eps_c of the largest class is "
        "(0.5 + 3.57 a_c) eps",
        "10 classes are hard-coded there, and its option of a wide network does not import",
        "the step size does not follow the radius of the class, and with PGD-AT beta has no effect",
        "leak, not rebuilt: the reported epochs are chosen by robust accuracy on the test set, the "
        "worst class's added",
        "the released network sees input normalised by mean and standard deviation; here it does "
        "not",
        "mode: train: the release's PGD-AT attacks in train mode, so that the class mix of the "
        "batch enters the attack and every attack step moves the BatchNorm statistics",
        "clean_pass: the clean images pass once more after the step, and move the statistics again",
        "threshold: the release averages in an epoch only if the worst class is right on 24% of "
        "its attacked validation images, which the rare classes of a long tail hardly ever are; "
        "then the trained weights are evaluated. Here by default: on at least one",
        "the release takes 100 images per class of balanced data for validation, more than a rare "
        "class has; here training images are held out, and a class that can spare none is judged "
        "on its training images",
        "the weights of the loss are on for TRADES, as in the release's --ccr",
        "the release pads by reflection before its crop; here by zeros",
        "BatchNorm statistics and their counters are averaged like weights",
    ),
    passes="base, and the held-out images attacked once an epoch",
)
@dataclass
class CFA(Modifier):
    """Wei et al. 2023: radii, weights and averaging calibrated by class.

    Attributes:
        lambda_1: added to a class's accuracy for its radius.
        lambda_2: added to a class's accuracy for its weight of the divergence.
        begin: share of the epochs with equal radii at the beginning; 10 of 200 in the release.
        weigh: weigh natural loss and divergence by class, where the base has both.
        decay: share of the average that an epoch keeps; 0: no averaging.
        threshold: how much of its held-out images the worst class must get right under attack for
            an epoch's weights to be averaged in; none at all is never enough.
        mode: how the attack runs the network; anything but "eval" is a quirk of the release.
        equal_classes: count accuracies as if classes were of equal size, as the release does.
        clean_pass: pass the clean images once more after the step, as the release does.
    """

    lambda_1: float = 0.5
    lambda_2: float = 0.5
    begin: float = 0.05
    weigh: bool = True
    decay: float = 0.88
    threshold: float = 0.0
    mode: Mode = "eval"
    equal_classes: bool = False
    clean_pass: bool = False

    needs_held_out = True

    def __post_init__(self) -> None:
        self.robust = ClassAccuracy(self.num_classes)
        self.clean = ClassAccuracy(self.num_classes)
        self._average: Weights = {}
        self._logits: Tensor | None = None

    def calibration(self, ctx: Context, plus: float) -> Tensor:
        """Accuracy of each class plus a constant, (C,); 1 as long as there is none to use."""
        known = self.robust.last
        if known is None or ctx.epoch < round(self.begin * ctx.epochs):
            return torch.ones(self.num_classes, device=ctx.class_counts.device)
        return (plus + known.to(ctx.class_counts.device)).clamp_min(0)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The base's, in the radius of the class; a start within eps is scaled along."""
        ctx = ctx if self.mode == "eval" else ctx.changed(mode=self.mode)
        factor = self.calibration(ctx, self.lambda_1)[y]
        start = None if ctx.attack.start == "gaussian" else factor
        return self.base.attack(model, x, y, ctx.scaled(factor, start=start))

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The base's, natural loss and divergence weighed by class."""
        with self._noted(model, x_adv):
            found = self.base.terms(model, x, y, x_adv, ctx)
        beta = self._beta()
        if self.weigh and beta is not None and {"natural", "consistency"} <= found.keys():
            share = class_beta(self.calibration(ctx, self.lambda_2), beta)[y].to(found["natural"])
            found["natural"] = (1 - share) * found["natural"]
            found["consistency"] = share / beta * found["consistency"]
        return found

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """The base's, or the mean of the weighed terms."""
        if self.has_terms():
            return total(self.terms(model, x, y, x_adv, ctx)).mean()
        with self._noted(model, x_adv):
            return self.base.loss(model, x, y, x_adv, ctx)

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """What is due for the base, and count right answers of the outer pass."""
        self.base.after_step(model, x, y, x_adv, ctx)
        if self._logits is None:  # a base that lets no attacked image through the whole network
            self._logits = attack_logits(model, x_adv)
        self.robust.count(self._logits, y)
        self._logits = None
        if self.clean_pass:
            with torch.no_grad():
                self.clean.count(model(x), y)

    def on_epoch_end(self, ctx: Context) -> None:
        """Take the epoch's accuracies, and average the weights if no class is left behind."""
        self.base.on_epoch_end(ctx)
        self.robust.end_epoch(equal_classes=self.equal_classes)
        self.clean.end_epoch(equal_classes=self.equal_classes)
        if self.decay and ctx.model is not None:
            outcomes = held_out_outcomes(self.base, ctx, steps=ctx.attack.steps)
            robust = outcomes.robust_accuracy(self.num_classes)
            worst = float(robust[~robust.isnan()].min())
            if worst > 0 and worst >= self.threshold:
                self._average = average(self._average, network_state(ctx.model), self.decay)

    def weights(self) -> Weights | None:
        """The average; the base's if no epoch was good enough."""
        return self._average or self.base.weights()

    def own_state(self) -> dict[str, Any]:
        """The last epoch's accuracies and the average."""
        known = self.robust.last
        return {"average": self._average, "accuracy": {} if known is None else {"robust": known}}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take back what `own_state` returned."""
        self._average = dict(state["average"])
        self.robust.last = state["accuracy"].get("robust")

    def _beta(self) -> float | None:
        """The weight of the divergence in the defense that is modified."""
        *_, defense = layers(self.base)
        return getattr(defense, "beta", None)

    @contextmanager
    def _noted(self, model: nn.Module, x_adv: Tensor) -> Iterator[None]:
        """Keep the logits of the attacked images that pass inside, until the step is over."""

        def note(_model: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
            if inputs[0] is x_adv:
                self._logits = logits.detach()

        hook = model.register_forward_hook(note)
        try:
            yield
        finally:
            hook.remove()


def class_beta(calibration: Tensor, beta: float) -> Tensor:
    """b_c = t_c / (1 + t_c) with t_c = calibration_c * beta: weight of the divergence, (C,)."""
    strength = calibration * beta
    return strength / (1 + strength)


class ClassAccuracy:
    """Counts right answers by class over an epoch, and keeps those of the last epoch.

    Args:
        num_classes: number of classes C.
    """

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self._counts: Tensor | None = None
        self.last: Tensor | None = None

    def count(self, logits: Tensor, y: Tensor) -> None:
        """Take in logits (B, C) and labels (B,)."""
        right = (logits.argmax(1) == y).double()
        seen = torch.zeros(2, self._classes, dtype=torch.float64, device=y.device)
        seen[0].index_add_(0, y, right)
        seen[1].index_add_(0, y, torch.ones_like(right))
        self._counts = seen if self._counts is None else self._counts + seen

    def end_epoch(self, *, equal_classes: bool) -> None:
        """Turn the counts into `last`, float (C,), and begin anew.

        A class that was not seen keeps what it had, at first 1/2 (with lambda 1/2: eps_c = eps).

        Args:
            equal_classes: divide by N / C instead of the images of the class.
        """
        if self._counts is None:
            return
        right, seen = self._counts
        self._counts = None
        if equal_classes:
            self.last = self._classes * right / seen.sum()
            return
        before = torch.full_like(right, 0.5) if self.last is None else self.last.to(right)
        self.last = torch.where(seen > 0, right / seen.clamp_min(1), before)
