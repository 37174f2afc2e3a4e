"""Re-sampling: every class is shown equally often.

    an epoch:  C n_max images; again and again a class, then one of its images,
               both in shuffled cycles

Shen et al. 2016, in the form of RoBal's and Facebook's code. An epoch is longer than
the training set: 3.6 times on CIFAR-10-LT at ratio 50.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ltrobust.methods.pgd_at import ROBAL_RECIPE, robal_recipe
from pydantic import Field
from torch import Tensor

from ltrobust.data.class_aware import ClassAware, shuffled_by
from ltrobust.errors import UserError
from ltrobust.method import Citation, Context, Sampler, register_method
from ltrobust.modifier import Modifier
from ltrobust.training.schedule import Schedule

SHEN = Citation(
    authors="L. Shen, Z. Lin, Q. Huang",
    title="Relay Backpropagation for Effective Learning of Deep Convolutional Neural Networks",
    venue="ECCV",
    year=2016,
    url="https://arxiv.org/abs/1512.05830",
)
SCHEDULE = Schedule(
    kind="robal-compounding", milestones=(15, 20), counted_from=1, published_epochs=25
)


@register_method(
    "resample",
    paper=SHEN,
    recipes={
        "pgd-at": robal_recipe(ROBAL_RECIPE.model_copy(update={"epochs": 25, "schedule": SCHEDULE}))
    },
    quirks=(
        "RoBal trains 25 of the longer epochs, about as many images as 80 of the usual ones; "
        "at the unified recipe the epochs stay as many and become longer, and cost as much more",
        "the released cycles go on from epoch to epoch; here each epoch shuffles anew, so that a "
        "resumed training is as an unbroken one",
    ),
    passes="base",
)
@dataclass
class Resample(Modifier):
    """Class-aware sampling around any defense.

    Attributes:
        num_samples_cls: images in a row of a class once it is drawn; Facebook's code takes 4.
    """

    num_samples_cls: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.num_samples_cls < 1:
            raise UserError(
                f"resample: num_samples_cls is {self.num_samples_cls}; it must be at least 1"
            )

    def sampler(self, labels: Tensor, ctx: Context) -> Sampler:
        """First a class, then an image."""
        assert ctx.sampling is not None
        shuffle = shuffled_by(ctx.sampling)
        return ClassAware(labels, shuffle, images_per_class=self.num_samples_cls)
