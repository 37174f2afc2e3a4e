"""cRT: the last layer is trained anew on a trained network, all classes shown equally often.

    network: the base's, its features kept;  last layer: drawn anew
    an epoch of C n_max images (`resample`) with the base's attack and loss, rate 0.1

Kang et al. 2020 (classifier re-training), on adversarial images, as RoBal's one-epoch
re-sampling fine-tune. The epochs of the base are not repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ltrobust.methods.resample import Resample
from torch import Tensor, nn

from ltrobust.config import Recipe
from ltrobust.method import Citation, Context, Sampler, register_method
from ltrobust.models import Network
from ltrobust.modifier import PostHoc
from ltrobust.training.schedule import Schedule

KANG = Citation(
    authors="B. Kang, S. Xie, M. Rohrbach, Z. Yan, A. Gordo, J. Feng, Y. Kalantidis",
    title="Decoupling Representation and Classifier for Long-Tailed Recognition",
    venue="ICLR",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
)


def stage(recipe: Recipe, epochs: int, lr: float) -> Recipe:
    """The base's recipe for so many epochs at one rate.

    The released schedule decays from its third epoch on, and the first is what is reported.
    """
    constant = Schedule(kind="multistep", milestones=(), counted_from=1, published_epochs=epochs)
    return recipe.model_copy(update={"epochs": epochs, "lr": lr, "schedule": constant})


@register_method(
    "crt",
    paper=KANG,
    released={"reinit": False},
    quirks=(
        "reinit: RoBal's release goes on from the trained last layer, where Kang et al. draw it "
        "anew",
        "the batch norms' running statistics move to the new mix of classes although their "
        "weights are kept; so do ours",
    ),
    passes="base",
)
@dataclass
class CRT(PostHoc):
    """Kang et al. 2020 on a robust network, as RoBal's "1-epoch RS fine-tune".

    Attributes:
        epochs: how long.
        lr: learning rate.
        reinit: draw the last layer anew.
        num_samples_cls: as in `resample`.
    """

    epochs: int = 1
    lr: float = 0.1
    reinit: bool = True
    num_samples_cls: int = 1

    def adopt(self, net: Network, trained: dict[str, Tensor]) -> None:
        """All but the last layer, or all."""
        kept = {
            name: value
            for name, value in net.state_dict().items()
            if self.reinit and name.startswith(f"{net.head_name}.")
        }
        net.load_state_dict({**trained, **kept})

    def fine_tuning(self, recipe: Recipe) -> Recipe:
        """One epoch unless more are asked for."""
        return stage(recipe, self.epochs, self.lr)

    def trainable(self, net: Network) -> Iterable[nn.Parameter]:
        """The last layer, without what its base keeps frozen."""
        return (p for p in net.head.parameters() if p.requires_grad)

    def sampler(self, labels: Tensor, ctx: Context) -> Sampler | None:
        """All classes equally often."""
        return Resample(self.class_counts, self.base, self.num_samples_cls).sampler(labels, ctx)
