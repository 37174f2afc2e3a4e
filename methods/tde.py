"""TDE: what all features share is taken away from a trained cosine classifier.

    x = h / ||h||;  x <- x - alpha cos(x, d) d;  z_c = scale <x, w_c / (||w_c|| + gamma)>

Tang et al. 2020, on a robust network. The direction d is the moving sum of the unit features
that the head of `at-cosine` keeps while it trains. Nothing is trained; attacks see the new logits.
RoBal's own version attacks the de-biased branch in training already: that is the defense `at-tde`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.at_tde import TANG, TDE_QUIRKS
from torch import nn

from ltrobust.method import Method, register_method
from ltrobust.models.cosine_heads import TDEHead
from ltrobust.modifier import PostHoc


@register_method(
    "tde",
    paper=TANG,
    released={"alpha": 0.1, "unit_direction": False},
    quirks=TDE_QUIRKS,
    passes="base, none of its own",
)
@dataclass
class TDE(PostHoc):
    """Tang et al. 2020 on a cosine head that kept the direction of its features.

    Attributes:
        alpha: how much of the direction is taken away.
        unit_direction: divide the direction by its norm; the code of RoBal does not.
    """

    trial = "at-cosine"

    alpha: float = 1.0
    unit_direction: bool = True

    @classmethod
    def refuses(cls, base: Method) -> str | None:
        """Bases without a kept direction, and those that take it away themselves."""
        head = base.head(8, base.num_classes)
        if not isinstance(head, TDEHead):
            return (
                f"tde needs a cosine head that keeps the direction of its features, and that of "
                f"{base.name} does not; write at-cosine+tde"
            )
        if head.alpha:
            return f"{base.name} takes the direction away already; write at-cosine+tde"
        return None

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """The base's head, which takes the direction away in eval mode."""
        head = self.base.head(in_features, num_classes)
        assert isinstance(head, TDEHead)
        head.alpha, head.unit = self.alpha, self.unit_direction
        return head
