"""Calls our losses the way a stored loss case of the second set describes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from golden2_losses import LossCase
from torch import Tensor

from ltrobust import losses


def mart(case: LossCase) -> Tensor:
    clean, attacked = case.pair()
    return losses.mart_loss(clean, case.labels, attacked, beta=case.args.get("beta"))


def he(case: LossCase) -> Tensor:
    return losses.unimargin_loss(case.logits, case.labels, **case.args.given("m", "s"))


def he_trades(case: LossCase) -> Tensor:
    clean, attacked = case.pair()
    s = case.args.get("s")
    margin = losses.unimargin_loss(clean, case.labels, m=case.args.get("m"), s=s)
    return margin + case.args.get("beta") * losses.trades_kl(s * clean, s * attacked)


def gairat(case: LossCase) -> Tensor:
    steps = case.args.get("num_steps")
    case.args.must_be("kappa", "kappa clipped to num_steps")
    weights = losses.gairat_weights(
        case.array("kappa").clamp_max(steps),
        steps=steps,
        offset=case.args.get("Lambda"),
        assignment=case.args.get("func").lower(),
        halve_down=True,
    )
    case.also["weights"] = weights
    return (weights * F.cross_entropy(case.logits, case.labels, reduction="none")).mean()


def cfa_trades(case: LossCase) -> Tensor:
    clean, attacked = case.pair()
    beta = case.array(case.args.get("class_beta"))
    return losses.classwise_trades_loss(
        clean, case.labels, attacked, natural=1 - beta, consistency=beta
    )


def dafa_trades(case: LossCase) -> Tensor:
    clean, attacked = case.pair()
    weights = case.array(case.args.get("class_weights"))
    betas = torch.full_like(weights, case.args.get("beta"))
    return losses.classwise_trades_loss(
        clean, case.labels, attacked, natural=weights, consistency=betas
    )


def label_smoothing(case: LossCase) -> Tensor:
    return losses.label_smoothing_loss(case.logits, case.labels, mass=case.args.get("factor"))


def adjusted(case: LossCase) -> Tensor:
    tau = case.args.get("prior_tau")
    return losses.logit_adjusted_loss(case.logits, case.labels, case.counts, tau=tau)


def pairwise_margin(case: LossCase) -> Tensor:
    return losses.pairwise_margin_loss(
        case.logits,
        case.labels,
        case.array(case.args.get("class_weights")),
        case.array(case.args.get("class_graph")),
        m=case.args.get("margin_m"),
    )


def trades_bsl(case: LossCase) -> Tensor:
    clean, attacked = case.pair()
    balanced = losses.balanced_softmax_loss(clean, case.labels, case.counts)
    return balanced + case.args.get("beta") * losses.trades_kl(clean.detach(), attacked)


def avmixup(case: LossCase) -> Tensor:
    share = case.array(case.args.get("alpha"))
    mass = case.args.get("lambda_1") * share + case.args.get("lambda_2") * (1 - share)
    targets = losses.soft_labels(case.labels, case.logits.shape[1], mass)
    return losses.soft_cross_entropy(case.logits, targets)


def stage(case: LossCase, values: str) -> float:
    """The value that holds in the case's epoch, which begins a stage at each of some epochs."""
    epoch, starts = case.args.get("epoch"), case.args.get("epoch_devides")
    held = zip(starts, case.args.get(values), strict=True)
    return [value for start, value in held if epoch >= start][-1]


def deferred_margin(case: LossCase) -> Tensor:
    max_m = stage(case, "DM_maxs")
    return losses.ldam_loss(case.logits, case.labels, case.counts, max_m=max_m, s=1)


def deferred_weights(case: LossCase) -> Tensor:
    beta = stage(case, "DRW_betas")
    weights = losses.class_balanced_weights(case.counts, case.logits, beta=beta)
    case.also["weights"] = weights
    return F.cross_entropy(case.logits, case.labels, weights)


def softmax_margin(case: LossCase) -> Tensor:
    case.also["per_example"] = losses.softmax_margin(case.logits, case.labels)
    return case.also["per_example"].mean()


def soft_logit_margin(case: LossCase) -> Tensor:
    case.also["per_example"] = losses.soft_logit_margin(case.logits, case.labels)
    return case.also["per_example"].sum()


LOSSES: dict[str, Callable[[LossCase], Tensor]] = {
    "mart": mart,
    "he": he,
    "he_no_margin": he,
    "he_trades": he_trades,
    "gair_tanh": gairat,
    "gair_sigmoid": gairat,
    "gair_discrete": gairat,
    "cfa_trades": cfa_trades,
    "dafa_trades": dafa_trades,
    "las_label_smoothing": label_smoothing,
    "cgr_adjusted_ce": adjusted,
    "cgr_margin": pairwise_margin,
    "cgrm_atbsl_trades": trades_bsl,
    "avmix_soft_label": avmixup,
    "robal_dm": deferred_margin,
    "robal_drw": deferred_weights,
    "faal_softmax_margin": softmax_margin,
    "mma_slm": soft_logit_margin,
}
