"""RoBal: a scale-invariant head, class-aware margins and bias, and TRADES-like regularisation.

    f(x) = <h / ||h||, w_c / (||w_c|| + gamma)>                            (scale 1)
    x'   = argmax_{|x' - x| <= eps} CE(f(x'), y)                           (PGD, eval mode)
    z_y  = s (f_y(x') - m - tau_m log(n_y / n_min) / s), z_c = s f_c(x'),  then + tau_b log p_c
    L    = beta_adv CE(z, y) + beta_nat CE(f(x), y) + beta_reg KL(p(x) || p(x')) / B
    inference: scale * f - tau_p log p

Wu et al. 2021. N leans to natural accuracy, R to robustness; their constants differ
between CIFAR-10 (used up to 20 classes) and CIFAR-100.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from ltrobust.methods.pgd_at import (
    ROBAL_QUIRKS,
    ROBAL_RECIPE,
    ROBAL_SOURCE,
    ROBAL_SOURCES,
)
from torch import Tensor, nn

from ltrobust.losses import robal_kl, robal_margin_loss
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.models.heads import CosineHead

PAPER = Citation(
    authors="T. Wu, Z. Liu, Q. Huang, Y. Wang, D. Lin",
    title="Adversarial Robustness under Long-Tailed Distribution",
    venue="CVPR",
    year=2021,
    url="https://arxiv.org/abs/2104.02703",
)
RECIPE = PaperRecipe(
    arch="wrn-34-10",
    recipe=ROBAL_RECIPE,
    options={"extra_passes": True},
    source=ROBAL_SOURCE,
    sources=ROBAL_SOURCES,
)
QUIRKS = (
    *ROBAL_QUIRKS,
    "extra_passes: four train-mode passes (attacked, clean, clean, attacked), so that the "
    "BatchNorm statistics move four times a step",
    "the natural loss has weight 0 in the released configuration",
    "the attack sees cosines in [-1, 1], so its cross-entropy is nearly flat",
)

SMALL = 20
"""Up to so many classes the CIFAR-10 constants hold."""


@dataclass
class RoBal(Method):
    """What RoBal-N and RoBal-R share. Options left at None take the variant's published value.

    Attributes:
        m: margin; None: by variant and number of classes, as for all that follow.
        tau_m: weight of the class-aware margin.
        tau_b: weight of the class bias in the loss.
        tau_p: weight of the prior at inference.
        gamma: added to the weight norm of the head.
        scale: factor of the cosine at inference.
        beta_reg: weight of the divergence.
        s: factor of the cosine in the margin loss.
        beta_adv: weight of the margin loss.
        beta_nat: weight of the natural loss.
        extra_passes: the code's repeated train-mode passes.
    """

    m: float | None = None
    tau_m: float | None = None
    tau_b: float | None = None
    tau_p: float | None = None
    gamma: float | None = None
    scale: float | None = None
    beta_reg: float | None = None
    s: float = 10.0
    beta_adv: float = 1.0
    beta_nat: float = 0.0
    extra_passes: bool = False

    def __post_init__(self) -> None:
        for key, value in self.published(self.num_classes).items():
            if getattr(self, key) is None:
                setattr(self, key, value)
        self._prior = (self.class_counts / self.class_counts.sum()).log()

    @staticmethod
    def published(num_classes: int) -> dict[str, float]:
        """The variant's constants for C classes."""
        raise NotImplementedError

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """Scale-invariant cosine head at scale 1."""
        assert self.gamma is not None
        return CosineHead(in_features, num_classes, gamma=self.gamma)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """Margin loss on attacked images, natural loss, and divergence on the raw cosines."""
        assert self.beta_reg is not None
        attacked = model(x_adv)
        margin = robal_margin_loss(
            attacked,
            y,
            ctx.class_counts,
            m=self.m or 0.0,
            s=self.s,
            tau_b=self.tau_b or 0.0,
            tau_m=self.tau_m or 0.0,
        )
        clean = model(x)
        total = self.beta_adv * margin
        if self.beta_nat or self.extra_passes:
            total = total + self.beta_nat * F.cross_entropy(clean, y)
        if self.extra_passes:
            clean, attacked = model(x), model(x_adv)
        return total + self.beta_reg * robal_kl(clean, attacked)

    def adjust(self, logits: Tensor) -> Tensor:
        """Scale the cosines and subtract tau_p log p."""
        assert self.scale is not None
        assert self.tau_p is not None
        if self.tau_p == 0:
            return logits if self.scale == 1 else self.scale * logits
        if self._prior.device != logits.device:  # brought there once, for every later pass
            self._prior = self._prior.to(logits.device)
        return self.scale * logits - self.tau_p * self._prior.to(logits.dtype)


@register_method(
    "robal-r",
    paper=PAPER,
    recipe=RECIPE,
    quirks=(
        *QUIRKS,
        "on CIFAR-10 R is evaluated at scale 1 after training at scale 10: cross-entropy attacks "
        "see flat logits and look weaker than they are; trust AutoAttack",
    ),
    passes="K + 2",
    aliases=("robal",),
)
@dataclass
class RoBalR(RoBal):
    """RoBal-R, the robust variant; `robal` means this one."""

    @staticmethod
    def published(num_classes: int) -> dict[str, float]:
        """The constants of RoBal-R."""
        if num_classes <= SMALL:
            return {
                "m": 0.1,
                "tau_m": 0.3,
                "tau_b": 1.5,
                "tau_p": 0.0,
                "gamma": 1 / 32,
                "scale": 1.0,
                "beta_reg": 6.0,
            }
        return {
            "m": 0.3,
            "tau_m": 0.0,
            "tau_b": 0.0,
            "tau_p": 1.7,
            "gamma": 1 / 16,
            "scale": 10.0,
            "beta_reg": 6.0,
        }


@register_method("robal-n", paper=PAPER, recipe=RECIPE, quirks=QUIRKS, passes="K + 2")
@dataclass
class RoBalN(RoBal):
    """RoBal-N, the variant that keeps more natural accuracy."""

    @staticmethod
    def published(num_classes: int) -> dict[str, float]:
        """The constants of RoBal-N."""
        if num_classes <= SMALL:
            return {
                "m": 0.1,
                "tau_m": 0.0,
                "tau_b": 1.2,
                "tau_p": 0.1,
                "gamma": 1 / 32,
                "scale": 10.0,
                "beta_reg": 6.0,
            }
        return {
            "m": 0.2,
            "tau_m": 0.0,
            "tau_b": 0.0,
            "tau_p": 1.5,
            "gamma": 1 / 32,
            "scale": 10.0,
            "beta_reg": 3.0,
        }
