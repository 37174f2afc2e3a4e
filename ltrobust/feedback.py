"""How a network in training does on images that are held out of training, for class feedback.

Never on the test set: what steers a training by the images that it is judged on leaks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ltrobust.attacks.pgd import attack_mode
from ltrobust.context import Context
from ltrobust.losses import cross_entropy_sum
from ltrobust.method import Method

AT_A_TIME = 250


@dataclass(frozen=True)
class Outcomes:
    """What a network answers to the held-out images, all on its device.

    Attributes:
        labels: int64 (V,).
        clean: predicted classes, int64 (V,).
        attacked: predicted classes under attack, int64 (V,).
        features: of the attacked images, float (V, D).
    """

    labels: Tensor
    clean: Tensor
    attacked: Tensor
    features: Tensor

    def confusion(self, num_classes: int) -> Tensor:
        """Images of class i that are taken for class j under attack, int64 (C, C)."""
        cells = self.labels * num_classes + self.attacked
        return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)

    def robust_accuracy(self, num_classes: int) -> Tensor:
        """Share of each class (C,) that is right under attack; of a class without an image, nan."""
        confusion = self.confusion(num_classes)
        return confusion.diagonal() / confusion.sum(1)

    def errors(self, num_classes: int) -> tuple[Tensor, Tensor]:
        """Shares of each class (C,) that are wrong, and that only the attack makes wrong.

        A class without an image gets the mean of the others.
        """
        right, kept = self.clean == self.labels, self.attacked == self.labels
        counts = torch.bincount(self.labels, minlength=num_classes)

        def share(chosen: Tensor) -> Tensor:
            found = torch.bincount(self.labels[chosen], minlength=num_classes)
            shares = found.double() / counts
            return torch.where(counts > 0, shares, shares.nanmean())

        # as in FRL, whose boundary error is the fall of the accuracy
        return share(~right), share(right) - share(kept)


def held_out_outcomes(
    method: Method, ctx: Context, *, steps: int, step_size: float | None = None
) -> Outcomes:
    """Attack the held-out images by PGD on cross-entropy and note what the network answers.

    Args:
        method: its inference adjustment is seen through.
        ctx: an epoch's context, with `model` and `held_out`; the recipe's radius and start count.
        steps: of the attack.
        step_size: of the attack; None: the recipe's.
    """
    model, held_out = ctx.model, ctx.held_out
    assert model is not None
    assert held_out is not None
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    parts = zip(held_out.images.split(AT_A_TIME), held_out.labels.split(AT_A_TIME), strict=True)
    for x, y in parts:
        x_adv = ctx.pgd(
            model,
            x,
            y,
            lambda logits, labels: cross_entropy_sum(method.adjust(logits), labels),
            steps=steps,
            step_size=step_size,
        )
        with attack_mode(model), torch.no_grad():
            clean, attacked = (method.adjust(model(at)).argmax(1) for at in (x, x_adv))
            found.append((clean, attacked, model.features(x_adv)))  # type: ignore[operator]
    clean, attacked, features = (torch.cat(tensors) for tensors in zip(*found, strict=True))
    return Outcomes(held_out.labels, clean, attacked, features)
