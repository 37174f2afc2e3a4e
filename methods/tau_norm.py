"""tau-normalisation: the rows of a trained last layer are divided by their lengths.

    z_c = (w_c / ||w_c||^tau) . h,  without the bias

Kang et al. 2020: rows of frequent classes grow longer, and this takes it back. Nothing
is trained; attacks see the new logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.crt import KANG
from torch import Tensor, nn

from ltrobust.method import Method, register_method
from ltrobust.models import Network
from ltrobust.models.heads import TauNormHead
from ltrobust.modifier import PostHoc, adopt_linear, refuses_head


@register_method(
    "tau-norm",
    paper=KANG,
    passes="base, none of its own",
    quirks=(
        "the trained bias is dropped, in RoBal's version and in the authors'",
        "the authors choose tau in 0 to 2 on validation images; RoBal takes 1, as here",
        "smaller logits weaken cross-entropy attacks: in RoBal's own table PGD-AT rises from 29.30 "
        "to 36.57 under PGD-20, but from 28.15 to 29.77 under AutoAttack",
    ),
)
@dataclass
class TauNorm(PostHoc):
    """Kang et al. 2020 on a robust network.

    Attributes:
        tau: exponent of the rows' lengths; 0 only drops the bias.
    """

    tau: float = 1.0

    @classmethod
    def refuses(cls, base: Method) -> str | None:
        """Bases whose last layer is not linear."""
        return refuses_head(cls.name, base)

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """The linear layer with normalised rows."""
        return TauNormHead(in_features, num_classes, tau=self.tau)

    def adopt(self, net: Network, trained: dict[str, Tensor]) -> None:
        """The linear layer's weight."""
        adopt_linear(net, trained, {"fc.weight": "weight"})
