"""Calls our losses the way a stored loss case describes; the table says which case needs which.

Defaults are those of the published functions, for arguments that a case leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from golden_store import Arguments
from torch import Tensor

from ltrobust import losses


@dataclass
class LossCase:
    """Inputs of a loss case by their role; `extra` maps a name in `args` to a stored array."""

    inputs: dict[str, Tensor]
    args: Arguments
    array: Callable[[Any], Tensor | None]

    def __getitem__(self, role: str) -> Tensor:
        return self.inputs[role]

    @property
    def logits(self) -> Tensor:
        return next(self[name] for name in ("logits", "cos_logits") if name in self.inputs)

    @property
    def labels(self) -> Tensor:
        return next(self[name] for name in self.inputs if name.startswith("labels"))

    @property
    def counts(self) -> Tensor:
        return self["samples_per_cls"]

    def pair(self) -> tuple[Tensor, Tensor]:
        """Clean and adversarial logits."""
        cosine = "cos_" if "cos_logits_nat" in self.inputs else ""
        return self[f"{cosine}logits_nat"], self[f"{cosine}logits_adv"]


def balanced_softmax(case: LossCase) -> Tensor:
    return losses.balanced_softmax_loss(case.logits, case.labels, case.counts)


def robal_margin(case: LossCase) -> Tensor:
    options = case.args.given("m", "s", "tau_b", "tau_m")
    return losses.robal_margin_loss(case.logits, case.labels, case.counts, **options)


def ldam(case: LossCase) -> Tensor:
    sign = -1 if case.args.get("inv", False) else 1
    return losses.ldam_loss(
        case.logits,
        case.labels,
        case.counts,
        g=sign * case.args.get("g", 0.25),
        class_weights=case.array(case.args.get("weight")),
        **case.args.given("max_m", "s"),
    )


def unimargin(case: LossCase) -> Tensor:
    weights = case.array(case.args.get("weight"))
    options = case.args.given("m", "s")
    return losses.unimargin_loss(case.logits, case.labels, class_weights=weights, **options)


def focal(case: LossCase) -> Tensor:
    case.args.must_be("use_sigmoid", True)
    return losses.focal_loss(case.logits, case.labels, **case.args.given("gamma"))


def cb_focal(case: LossCase) -> Tensor:
    case.args.must_be("loss_type", "focal")
    case.args.must_be("use_sigmoid", True)
    options = case.args.given("beta", "gamma", "alpha")
    return losses.class_balanced_loss(case.logits, case.labels, case.counts, **options)


def cdt(case: LossCase) -> Tensor:
    return losses.cdt_loss(case.logits, case.labels, case.counts, **case.args.given("tau"))


def logit_adjusted(case: LossCase) -> Tensor:
    options = case.args.given("tau")
    return losses.logit_adjusted_loss(case.logits, case.labels, case.counts, **options)


def cross_entropy(case: LossCase) -> Tensor:
    return F.cross_entropy(case.logits, case.labels)


def robal_total(case: LossCase) -> Tensor:
    clean, adversarial = case.pair()
    case.args.must_be("reg_opt", "trades")
    margin = case.args.get("MultiMargin")
    if margin is None:
        outer = F.cross_entropy(adversarial, case.labels)
    else:
        outer = losses.robal_margin_loss(adversarial, case.labels, case.counts, **margin)
    return (
        case.args.get("beta_adv", 1.0) * outer
        + case.args.get("beta_nat", 0.0) * F.cross_entropy(clean, case.labels)
        + case.args.get("beta_reg", 0.0) * losses.robal_kl(clean, adversarial)
    )


def trades_kl(case: LossCase) -> Tensor:
    return case.args.get("beta", 1.0) * losses.trades_kl(*case.pair())


def trades_total(case: LossCase) -> Tensor:
    clean, adversarial = case.pair()
    return losses.trades_loss(clean, case.labels, adversarial, beta=case.args.get("beta", 1.0))


def harl(case: LossCase) -> Tensor:
    case.args.must_be("num_classes", case.logits.shape[1])
    options = case.args.given("alpha", "beta", "gamma")
    return losses.harl_loss(case.logits, case.labels, count_absent=True, **options)


def rbl_weights(case: LossCase) -> Tensor:
    """The class weights that a case on REAT's attack loss stores besides its loss."""
    predicted = case.array(case.args.get("at_per_class"))
    assert predicted is not None
    return losses.rbl_weights(case.counts, predicted)


def rbl(case: LossCase) -> Tensor:
    return losses.rbl_loss(case.logits, case.labels, rbl_weights(case))


def tail(case: LossCase) -> Tensor:
    tail = losses.tail_class_mask(len(case.counts))
    return losses.tail_term_released(case["features"], case.labels, case.counts, tail)


def reat_total(case: LossCase) -> Tensor:
    return balanced_softmax(case) + tail(case)
