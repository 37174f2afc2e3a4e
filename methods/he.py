"""HE: adversarial training on the hypersphere, with normalised features and weights and a margin.

    c(x) = <h / ||h||, w_c / ||w_c||>        (cosines; at inference the logits are s c)
    x'   = argmax_{|x' - x| <= eps} A        (PGD, eval mode, no margin)
    M(x) = CE(s (c(x) - m 1_y), y)

    he         A = CE(s c(x'), y)                     L = M(x')
    he-trades  A = KL(softmax s c(x) || softmax s c(x'))
               L = M(x) + beta KL(softmax s c(x) || softmax s c(x')) / B
    he-alp     A = CE(s c(x'), y)
               L = (M(x) + M(x')) / 2 + beta mean_k (c_k(x) - c_k(x'))^2

Pang et al. 2020; s and m are 10 and 0.2, 15 and 0.2, 20 and 0.3. RoBal's
repository calls another construction HE: here that is cos-he.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_logits
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.losses import scaled_cross_entropy, trades_kl, unimargin_loss
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.models.cosine_heads import HEHead
from ltrobust.training.schedule import Schedule

PAPER = Citation(
    authors="T. Pang, X. Yang, Y. Dong, K. Xu, J. Zhu, H. Su",
    title="Boosting Adversarial Training with Hypersphere Embedding",
    venue="NeurIPS",
    year=2020,
    url="https://arxiv.org/abs/2002.08619",
)
QUIRKS = (
    "overwritten_weight: each forward pass overwrites the head's weight with its normalised rows, "
    "so the normalisation is not differentiated and the optimizer acts on unit rows; the missing "
    "factor would change gradients by up to 0.5 where the largest is 0.6",
    "the released loss exponentiates s c without subtracting the maximum, which is finite up to s "
    "of about 700 in float64 and 88 in float32; here the maximum is subtracted",
    "the attack sees the scale s but not the margin",
    "a user found TRADES-HE at 60.0 under APGD-CE and at 52.9 after APGD-DLR (AT_HE, issue 1): "
    "trust AutoAttack",
    "the attack starts from 0.001 * N(0, 1), whatever eps is",
    "the released network normalises its input with mean and standard deviation; here it does not",
    "attacks in evaluation see logits s c, the scale that was trained with",
)


def published(weight_decay: float) -> PaperRecipe:
    """The recipe of the released script, which is the same for the three but for the decay."""
    return PaperRecipe(
        arch="wrn-34-10",
        recipe=Recipe(
            epochs=77,
            batch_size=128,
            lr=0.1,
            momentum=0.9,
            nesterov=False,
            weight_decay=weight_decay,
            schedule=Schedule(
                kind="multistep", milestones=(75, 90, 100), counted_from=1, published_epochs=77
            ),
            attack=TrainingAttack(eps=0.031, step_size=0.007, steps=10, start="gaussian"),
            drop_last=False,
        ),
        datasets=("cifar10-lt",),
        options={"overwritten_weight": True},
        source="ShawnXYang/AT_HE @ dad6a41, CIFAR-10",
        checkpoint="every epoch kept",
        test_set="balanced (the paper has no long-tailed runs)",
    )


@dataclass
class Hypersphere(Method):
    """What the three share: the head, and the scale at inference.

    Attributes:
        s: factor of the cosines.
        m: margin off the true class's cosine, in the outer loss only.
        overwritten_weight: the released normalisation, which is not differentiated.
    """

    s: float = 10.0
    m: float = 0.2
    overwritten_weight: bool = False

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """Cosine head at scale 1."""
        return HEHead(in_features, num_classes, differentiate=not self.overwritten_weight)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """PGD on the cross-entropy of scaled cosines."""
        return ctx.pgd(model, x, y, partial(scaled_cross_entropy, alpha=self.s))

    def adjust(self, logits: Tensor) -> Tensor:
        """Scale the cosines."""
        return self.s * logits

    def margin_loss(self, cosines: Tensor, y: Tensor) -> Tensor:
        """M, image by image (B,), of cosines (B, C)."""
        return unimargin_loss(cosines, y, m=self.m, s=self.s, reduction="none")


@register_method("he", paper=PAPER, recipe=published(5e-4), quirks=QUIRKS, passes="K + 1")
@dataclass
class HE(Hypersphere):
    """Pang et al. 2020, on PGD-AT.

    Attributes:
        s: factor of the cosines.
        m: margin off the true class's cosine, in the outer loss only.
        overwritten_weight: the released normalisation, which is not differentiated.
    """

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """M(x')."""
        return {"attacked": self.margin_loss(model(x_adv), y)}


@register_method("he-trades", paper=PAPER, recipe=published(2e-4), quirks=QUIRKS, passes="K + 2")
@dataclass
class HETrades(Hypersphere):
    """Pang et al. 2020, on TRADES.

    Attributes:
        s: factor of the cosines.
        m: margin off the true class's cosine, in the outer loss only.
        overwritten_weight: the released normalisation, which is not differentiated.
        beta: weight of the divergence.
    """

    s: float = 15.0
    beta: float = 6.0

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Maximise the divergence from the clean prediction, which no step changes."""
        return ctx.pgd(model, x, y, self._divergence, attack_logits(model, x, ctx.mode))

    def _divergence(self, cosines: Tensor, _labels: Tensor, clean: Tensor) -> Tensor:
        """The divergence of attacked from clean predictions, summed over the images."""
        return trades_kl(self.s * clean, self.s * cosines, reduction="none").sum()

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """M(x) and beta times the divergence; its clean side is not detached."""
        clean, attacked = model(x), model(x_adv)
        divergence = trades_kl(self.s * clean, self.s * attacked, reduction="none")
        return {"natural": self.margin_loss(clean, y), "consistency": self.beta * divergence}


@register_method("he-alp", paper=PAPER, recipe=published(2e-4), quirks=QUIRKS, passes="K + 2")
@dataclass
class HEALP(Hypersphere):
    """Pang et al. 2020, on adversarial logit pairing.

    Attributes:
        s: factor of the cosines.
        m: margin off the true class's cosine, in the outer loss only.
        overwritten_weight: the released normalisation, which is not differentiated.
        beta: weight of the squared difference of the cosines, which are not scaled there.
    """

    s: float = 20.0
    m: float = 0.3
    beta: float = 0.5

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """Half of M on either side, and beta times the mean squared difference."""
        clean, attacked = model(x), model(x_adv)
        return {
            "natural": 0.5 * self.margin_loss(clean, y),
            "attacked": 0.5 * self.margin_loss(attacked, y),
            "consistency": self.beta * (clean - attacked).square().mean(dim=1),
        }
