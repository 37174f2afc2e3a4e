"""FAAL: two epochs of fine-tuning on the worst class weights within a KL ball.

    margin_c = mean over the batch's attacked images of class c of max_{k != y} Q_k - Q_y
    w  = argmax sum_c p_c margin_c   over p >= 0, sum p = 1, sum_c (1/C) log((1/C) / p_c) <= r
    L  = C mean[ w_y l ],   l the loss of the base, image by image,   r = 0.5

Zhang et al. 2024. Q is the softmax on attacked images; a class that the batch lacks has margin -1,
the least. The problem is solved exactly: p_c = (l / C) / (m - margin_c), with l from sum p = 1 and
m > max margin from the ball. The attack is the base's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ltrobust.methods.trades import TRADES
from torch import Tensor, nn

from ltrobust.combination import layers
from ltrobust.config import Recipe
from ltrobust.losses import softmax_margin
from ltrobust.losses.counts import label_mask
from ltrobust.method import Citation, Context, Method, register_method
from ltrobust.modifier import PostHoc
from ltrobust.overheard import Overheard
from ltrobust.training.schedule import Schedule


@register_method(
    "faal",
    paper=Citation(
        authors="Y. Zhang, T. Zhang, R. Mu, X. Huang, W. Ruan",
        title="Towards Fairness-Aware Adversarial Learning",
        venue="CVPR",
        year=2024,
        url="https://arxiv.org/abs/2402.17729",
    ),
    released={
        "sum_over_images": True,
        "attacked_first": True,
        "wasted_clean": True,
        "kl_attack": True,
    },
    quirks=(
        "sum_over_images: a class enters the weight problem as often as it occurs in the batch, so "
        "that frequent classes dominate, and one that is absent not at all; with a batch of 20 the "
        "weights differ by up to 0.16 from those of one term per class",
        "classes that a batch lacks count with margin -1, the least, and so take little weight",
        "the attack ends with one more pass of the attacked images, in eval mode and to no use",
        "the released network sees input normalised by mean and standard deviation; here it does "
        "not",
        "attacked_first: attacked images pass before clean ones, which decides where the BatchNorm "
        "statistics end",
        "wasted_clean: on PGD-AT an unused train-mode pass of the clean batch moves the BatchNorm "
        "statistics once more",
        "kl_attack: on MART the attack climbs TRADES' divergence, not cross-entropy",
        "the weights come from a general convex solver, exact to 2e-7 in float32; "
        "here in closed form",
        "10 classes are hard-coded, and TRADES' and MART's divergence weigh 6, whatever the base "
        "was trained with",
        "leak, not rebuilt: the reported epoch has the best worst class on the test set",
    ),
    passes="K + 2",
)
@dataclass
class FAAL(PostHoc):
    """Zhang et al. 2024: distributionally robust class weights, by fine-tuning.

    Attributes:
        epochs: of fine-tuning; the rate falls to a tenth half-way.
        lr: its learning rate.
        radius: r of the ball around equal weights.
        sum_over_images: let classes enter the weight problem image by image, as released.
        attacked_first: pass attacked images before clean ones in the loss.
        wasted_clean: pass the clean batch even where the base's loss does not use it.
        kl_attack: attack MART as TRADES is attacked.
    """

    epochs: int = 2
    lr: float = 0.01
    radius: float = 0.5
    sum_over_images: bool = False
    attacked_first: bool = False
    wasted_clean: bool = False
    kl_attack: bool = False

    def __post_init__(self) -> None:
        self.class_margins = torch.zeros(self.num_classes)
        self.class_weights = torch.full((self.num_classes,), 1 / self.num_classes)

    @classmethod
    def refuses(cls, base: Method) -> str | None:
        """Weights need terms image by image."""
        if base.has_terms():
            return None
        return "faal weighs images, and the loss of the base is no mean over images"

    def fine_tuning(self, recipe: Recipe) -> Recipe:
        """The published epochs and rate; all else is the base's."""
        schedule = Schedule(kind="multistep", milestones=(1,), counted_from=0, published_epochs=2)
        return recipe.model_copy(
            update={"epochs": self.epochs, "lr": self.lr, "schedule": schedule}
        )

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The base's."""
        if self.kl_attack and list(layers(self))[-1].name == "mart":
            return TRADES(self.class_counts).attack(model, x, y, ctx)
        return self.base.attack(model, x, y, ctx)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The base's, each times C w_y."""
        heard = Overheard(model, x_adv, first=self.attacked_first)
        terms = self.base.terms(heard, x, y, x_adv, ctx)
        if self.wasted_clean and not any(images is x for images in heard.passed):
            with torch.no_grad():
                model(x)
        margins, shares = class_margins(heard.attacked(), y)
        gains = margins * shares if self.sum_over_images else margins
        self.class_margins, self.class_weights = margins, worst_weights(gains, self.radius)
        weights = self.num_classes * self.class_weights.to(x.dtype)[y]
        return {name: weights * term for name, term in terms.items()}


def class_margins(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean margin of each class of a batch, -1 where it is absent, and its share of it; (C,) each.

    Args:
        logits: (B, C) on attacked images.
        labels: (B,) int64.
    """
    of_class = label_mask(labels, logits.shape[1]).to(logits.dtype)
    counts = of_class.sum(0)
    means = softmax_margin(logits, labels) @ of_class / counts.clamp_min(1)
    return torch.where(counts > 0, means, -1.0), counts / len(labels)


def worst_weights(gains: Tensor, radius: float, *, grid: int = 64, rounds: int = 8) -> Tensor:
    """argmax of sum p gains over the distributions p with KL(uniform || p) <= radius, (C,).

    p_c is proportional to 1 / (m - gains_c), and the divergence falls as m grows from the largest
    gain to infinity. The gap m - max gains is searched on a grid of its logarithm that is refined
    around the answer, which needs no waiting for the device.

    Args:
        gains: (C,).
        radius: of the ball, >= 0.
        grid: points looked at together.
        rounds: of refinement, each by the number of points.
    """
    gains = gains.double()
    behind = gains.max() - gains
    steps = torch.linspace(0, 1, grid, dtype=torch.float64, device=gains.device)
    low = torch.full((), -40.0, dtype=torch.float64, device=gains.device)
    width = torch.full_like(low, 80.0)
    for _ in range(rounds):
        gaps = (low + width * steps).exp()[:, None]
        log_p = -(gaps + behind).log()
        log_p = log_p - log_p.logsumexp(1, keepdim=True)
        inside = -log_p.mean(1) - gains.new_tensor(len(gains)).log() <= radius
        # the last point outside; the answer lies between it and the next
        outside = (~inside).sum().clamp(1, grid - 1) - 1
        low = low + width * steps[outside]
        width = width / (grid - 1)
    weights = 1 / ((low + width).exp() + behind)
    return weights / weights.sum()
