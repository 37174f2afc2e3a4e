"""Builds our heads from the arguments of a stored classifier case of the second set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from golden_store import Arguments
from torch import Tensor, nn

from ltrobust.models.cosine_heads import HEHead, TDEHead
from ltrobust.models.heads import ScaledLinear, TauNormHead


@dataclass
class HeadCase:
    """What a head is built from; `array` gives a stored array by its name."""

    in_features: int
    num_classes: int
    args: Arguments
    array: Callable[[str], Tensor]

    @property
    def shape(self) -> tuple[int, int]:
        return self.in_features, self.num_classes


def tdesim(case: HeadCase) -> nn.Module:
    case.args.must_be("bias", False)
    options = {key: case.args.get(key) for key in ("alpha", "gamma", "scale", "mu")}
    if not case.args.get("posthoc"):
        options["alpha"] = 0.0
    head = TDEHead(*case.shape, unit=False, **options)
    head.direction.copy_(case.array(case.args.get("moving_ed")).flatten())
    return head


def causal_norm(case: HeadCase) -> nn.Module:
    options = {key: case.args.get(key) for key in ("alpha", "gamma")}
    if not case.args.get("use_effect"):
        options["alpha"] = 0.0
    head = TDEHead(
        *case.shape, groups=case.args.get("num_head"), scale=case.args.get("tau"), **options
    )
    head.direction.copy_(case.array("embed").flatten())
    return head


def lws(case: HeadCase) -> nn.Module:
    head = ScaledLinear(*case.shape)
    head.class_scale.data.copy_(case.array(case.args.get("scales")))
    return head


def tau_norm(case: HeadCase) -> nn.Module:
    return TauNormHead(*case.shape, tau=case.args.get("p"))


def he(case: HeadCase) -> nn.Module:
    return HEHead(*case.shape, differentiate=False)


HEADS: dict[str, Callable[[HeadCase], nn.Module]] = {
    "tdesim": tdesim,
    "causal_norm": causal_norm,
    "lws_facebook": lws,
    "tau_norm": tau_norm,
    "he_head": he,
}
"""By the beginning of a case's name."""
OUR_NAMES = {"scales": "class_scale"}
