"""Post-hoc re-scaling: logits of a trained network are divided by powers of the class counts.

    z_c <- z_c / n_c^tau

Ye et al. 2020, as RoBal compares it. Nothing is trained; attacks see the new logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.at_cdt import YE
from torch import Tensor

from ltrobust.losses.counts import float_counts
from ltrobust.method import register_method
from ltrobust.modifier import PostHoc


@register_method(
    "rescale",
    paper=YE,
    passes="base, none of its own",
    quirks=(
        "all logits shrink, about tenfold for n_c = 2000 at tau 0.3, which flattens the "
        "cross-entropy that attacks climb: in RoBal's own table PGD-AT rises from 29.30 to 39.05 "
        "under PGD-20 and from 28.15 to 28.23 under AutoAttack",
        "a negative logit of a rare class is pushed down where a positive one is pushed up",
    ),
)
@dataclass
class Rescale(PostHoc):
    """Ye et al. 2020 on a trained network of any head.

    Attributes:
        tau: exponent of the counts.
    """

    tau: float = 0.3

    def adjust(self, logits: Tensor) -> Tensor:
        """The base's logits over n_c^tau."""
        return self.base.adjust(logits) / float_counts(self.class_counts, logits) ** self.tau
