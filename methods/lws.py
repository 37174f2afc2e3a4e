"""LWS: one factor per class is learned on top of a trained last layer.

    z_c = s_c (w_c . h + b_c), s learned from 1 at rate 0.1, all else kept
    an epoch of C n_max images (`resample`) with the base's attack and loss

Kang et al. 2020 (learnable weight scaling), on adversarial images. RoBal's version has
z_c = s_c w_c . h, without the trained bias.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ltrobust.methods.crt import KANG, stage
from ltrobust.methods.resample import Resample
from torch import Tensor, nn

from ltrobust.config import Recipe
from ltrobust.errors import UserError
from ltrobust.method import Context, Method, Sampler, register_method
from ltrobust.models import Network
from ltrobust.models.heads import ScaledLinear, TauNormHead
from ltrobust.modifier import PostHoc, adopt_linear, refuses_head


@register_method(
    "lws",
    paper=KANG,
    released={"drop_bias": True},
    quirks=(
        "drop_bias: RoBal's version leaves the trained bias out; Facebook's scales weight and bias",
        "the weight decay acts on the factors and pulls them to 0, not to 1",
        "RoBal trains 10 epochs at a compounding rate and reports the first",
        "the batch norms' running statistics move",
    ),
    passes="base",
)
@dataclass
class LWS(PostHoc):
    """Kang et al. 2020 on a robust network, as RoBal's repository compares it.

    Attributes:
        epochs: how long.
        lr: learning rate of the factors.
        drop_bias: leave the trained bias out, as RoBal's version.
        normalise: divide the rows by their norms first; only without the bias.
        num_samples_cls: as in `resample`.
    """

    epochs: int = 1
    lr: float = 0.1
    drop_bias: bool = False
    normalise: bool = False
    num_samples_cls: int = 1

    def __post_init__(self) -> None:
        if self.normalise and not self.drop_bias:
            raise UserError("lws: normalise is only there without the bias; set drop_bias=true too")

    @classmethod
    def refuses(cls, base: Method) -> str | None:
        """Bases whose last layer is not linear."""
        return refuses_head(cls.name, base)

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """The linear layer with a factor per class."""
        if not self.drop_bias:
            return ScaledLinear(in_features, num_classes)
        tau = float(self.normalise)
        return TauNormHead(in_features, num_classes, tau=tau, learn_scale=True)

    def adopt(self, net: Network, trained: dict[str, Tensor]) -> None:
        """The linear layer's weight, and its bias where it is used."""
        names = {"fc.weight": "weight"} if self.drop_bias else {"weight": "weight", "bias": "bias"}
        adopt_linear(net, trained, names)

    def fine_tuning(self, recipe: Recipe) -> Recipe:
        """One epoch unless more are asked for."""
        return stage(recipe, self.epochs, self.lr)

    def trainable(self, net: Network) -> Iterable[nn.Parameter]:
        """The factors."""
        return (p for name, p in net.head.named_parameters() if name == "class_scale")

    def sampler(self, labels: Tensor, ctx: Context) -> Sampler | None:
        """All classes equally often."""
        return Resample(self.class_counts, self.base, self.num_samples_cls).sampler(labels, ctx)
