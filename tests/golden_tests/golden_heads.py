"""Builds our heads from the arguments of a stored classifier case; see the table.

Defaults are those of the published classes, for arguments that a case leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass

from golden_store import Arguments
from torch import Tensor, nn

from ltrobust.models import heads


@dataclass
class HeadCase:
    """What a head is built from."""

    in_features: int
    counts: Tensor
    args: Arguments

    @property
    def shape(self) -> tuple[int, int]:
        return self.in_features, len(self.counts)

    def linear(self) -> nn.Linear:
        """A linear layer; without `bias` the published code freezes the bias and still adds it."""
        if self.args.get("bias", False):
            return nn.Linear(*self.shape)
        return heads.frozen_bias_linear(*self.shape)


def cosplus(case: HeadCase) -> nn.Module:
    case.args.given("mu", "moving_avg")  # of the moving average that nothing reads
    return heads.CosineHead(
        *case.shape,
        gamma=case.args.get("gamma", 0.03125),
        scale=case.args.get("scale", 16),
        eta=case.args.get("eta", 1),
        bias=case.args.get("bias", False),
    )


def cos(case: HeadCase) -> nn.Module:
    bias = case.args.get("bias", False)
    return heads.CosineHead(*case.shape, gamma=0, scale=case.args.get("scale", 16), bias=bias)


def prior_shift(case: HeadCase, head: nn.Module) -> nn.Module:
    tau = case.args.get("tau_p", 1)
    posthoc = case.args.get("posthoc", False)
    return heads.PriorShift(head, case.counts, tau=tau) if posthoc else head


def postproc_cos(case: HeadCase) -> nn.Module:
    case.args.must_be("classifier", "Cos")
    case.args.get("bias")  # never used there
    gamma, scale = case.args.get("gamma", 0.03125), case.args.get("scale", 10)
    return prior_shift(case, heads.CosineHead(*case.shape, gamma=gamma, scale=scale))


def postproc_fc(case: HeadCase) -> nn.Module:
    case.args.must_be("classifier", "FC")
    case.args.given("gamma", "scale")  # of the cosine form
    return prior_shift(case, case.linear())


def postnorm(case: HeadCase) -> nn.Module:
    tau = case.args.get("tau", 0)
    head = heads.TauNormHead(
        *case.shape,
        tau=tau if case.args.get("norm", False) else 0,
        temperature=case.args.get("avg_T", 1),
        bias=case.args.get("bias", False),
        learn_scale=case.args.get("lws", False),
    )
    unit = case.args.get("feature_norm", False)
    return nn.Sequential(heads.UnitFeatures(), head) if unit else head


def cdt_head(case: HeadCase) -> nn.Module:
    posthoc = case.args.get("posthoc", False)
    wrapper = heads.CountTemperature if posthoc else heads.TrainingTemperature
    return wrapper(case.linear(), case.counts, tau=case.args.get("tau", 1))


def dot(case: HeadCase) -> nn.Module:
    return heads.frozen_bias_linear(*case.shape)
