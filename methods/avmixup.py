"""AVmixup: training between an image and a point beyond its adversarial one.

    x_pgd = argmax_{|x' - x| <= eps} CE(f(x'), y)              (PGD, eval mode)
    v     = x + gamma (x_pgd - x)                              (the adversarial vertex)
    x'    = clip(a x + (1 - a) v),  a ~ U(0, 1) for each image
    L     = -sum_c t_c log p_c(x'),  t_y = l, t_c = (1 - l) / (C - 1),  l = a l_1 + (1 - a) l_2

Lee et al. 2020. The authors clip v to [0, 1] before they mix; RoBal's version, whose
long-tailed figures are quoted, clips the mixture only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from ltrobust.methods.pgd_at import PGDAT, ROBAL_QUIRKS, robal_recipe
from torch import Tensor, nn

from ltrobust.attacks.pgd import Mode
from ltrobust.losses.counts import label_mask
from ltrobust.method import Citation, Context, register_method


@register_method(
    "avmixup",
    paper=Citation(
        authors="S. Lee, H. Lee, S. Yoon",
        title="Adversarial Vertex Mixup: Toward Better Adversarially Robust Generalization",
        venue="CVPR",
        year=2020,
        url="https://arxiv.org/abs/2003.02484",
    ),
    recipe=robal_recipe(clip_vertex=False),
    quirks=(
        *ROBAL_QUIRKS,
        "clip_vertex: RoBal's version clips the mixture only, so that mixed images reach beyond "
        "the segment that the authors draw from",
        "mode: the authors' TensorFlow code attacks in train mode, so that batch statistics enter "
        "the attack and the running ones move at every step; RoBal's attacks in eval mode",
        "the authors start from uniform(-eps, eps) and take 10 steps of 2/255 within 8/255 in "
        "80,000 steps of batch 128; RoBal's starts one-sided and takes 5",
        "by its construction x' may be up to gamma times eps away from x",
    ),
    passes="K + 1",
)
@dataclass
class AVmixup(PGDAT):
    """Lee et al. 2020; the published recipe is that of RoBal's version.

    Attributes:
        gamma: length of the way to the vertex, in that to the adversarial image.
        lambda_1: mass of the true class at the image.
        lambda_2: its mass at the vertex.
        clip_vertex: clip the vertex to [0, 1] before mixing, as the authors do.
        mode: how the network is run in the attack; "train" is the authors' code.
    """

    gamma: float = 2.0
    lambda_1: float = 1.0
    lambda_2: float = 0.1
    clip_vertex: bool = True
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        self._share: Tensor | None = None

    def draw(self, x: Tensor, ctx: Context) -> Tensor:
        """Each image's share a (B,) of the clean image."""
        return ctx.drawn(x.new_empty(len(x)), lambda share, g: share.uniform_(generator=g))

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """A point between each image and its vertex; its place is kept for the loss."""
        own = ctx if self.mode == "eval" else ctx.changed(mode=self.mode)
        x_adv = super().attack(model, x, y, own)
        vertex = x + self.gamma * (x_adv - x)
        if self.clip_vertex:
            vertex = vertex.clamp(0, 1)
        self._share = self.draw(x, ctx)
        share = self._share.view(-1, *[1] * (x.dim() - 1))
        return (share * x + (1 - share) * vertex).clamp(0, 1)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """Cross-entropy with the mixed labels."""
        assert self._share is not None, "the loss follows the attack of the same batch"
        logits = model(x_adv)
        mass = (self._share * self.lambda_1 + (1 - self._share) * self.lambda_2)[:, None]
        others = (1 - mass) / (logits.shape[1] - 1)
        targets = torch.where(label_mask(y, logits.shape[1]), mass, others)
        return {"attacked": -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)}
