"""What wraps a defense and changes one thing of it, while it trains or once it is trained.

How the names are joined is in `ltrobust.combination`; the interface of a defense is in
`ltrobust.method`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ltrobust.config import Recipe
from ltrobust.method import Context, Kind, Loss, Method, Sampler
from ltrobust.models import Network


@dataclass
class Modifier(Method):
    """Wraps a defense, or a defense with modifiers, and changes one thing of it.

    Whatever a subclass does not override is the base's. The loss that `backward` is given and the
    context that `attack` is given hold what all other modifiers changed, so that the order in which
    modifiers are written matters only where they change the same thing.

    Attributes:
        base: what is modified.
    """

    base: Method

    kind: ClassVar[Kind] = "modifier"
    trial: ClassVar[str] = "pgd-at"
    """The defense on which `check_method` and `methods show` try the modifier."""

    @classmethod
    def refuses(cls, base: Method) -> str | None:  # noqa: ARG003
        """Say why a base cannot be modified, as the end of a sentence; None: it can."""
        return None

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """The base's."""
        return self.base.head(in_features, num_classes)

    def sampler(self, labels: Tensor, ctx: Context) -> Sampler | None:
        """The base's."""
        return self.base.sampler(labels, ctx)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The base's."""
        return self.base.attack(model, x, y, ctx)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The base's."""
        return self.base.terms(model, x, y, x_adv, ctx)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """The base's, or the mean of the terms where a subclass changes these."""
        if type(self).terms is Modifier.terms:
            return self.base.loss(model, x, y, x_adv, ctx)
        return super().loss(model, x, y, x_adv, ctx)

    def backward(self, loss: Loss, model: nn.Module, ctx: Context) -> Tensor:
        """The base's."""
        return self.base.backward(loss, model, ctx)

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """The base's."""
        self.base.after_step(model, x, y, x_adv, ctx)

    def adjust(self, logits: Tensor) -> Tensor:
        """The base's."""
        return self.base.adjust(logits)

    def weights(self) -> dict[str, Tensor] | None:
        """The base's."""
        return self.base.weights()

    def on_epoch_start(self, ctx: Context) -> None:
        """The base's."""
        self.base.on_epoch_start(ctx)

    def on_epoch_end(self, ctx: Context) -> None:
        """The base's."""
        self.base.on_epoch_end(ctx)

    def has_terms(self) -> bool:
        """Whether the base's loss is told image by image."""
        return self.base.has_terms()

    def own_state(self) -> dict[str, Any]:
        """What this modifier keeps over epochs, as `state_dict`. Default: none."""
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take back what `own_state` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state but was given {sorted(state)}")

    def state_dict(self) -> dict[str, Any]:
        """The base's, and this modifier's own under its name."""
        own = {f"{self.name}.{key}": value for key, value in self.own_state().items()}
        return {**self.base.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        mark = f"{self.name}."
        self.load_own_state({k.removeprefix(mark): state[k] for k in state if k.startswith(mark)})
        self.base.load_state_dict({k: v for k, v in state.items() if not k.startswith(mark)})

    def inference_state(self) -> dict[str, Tensor]:
        """Of the base only: a modifier's own state is for training."""
        return self.base.inference_state()

    def load_inference_state(self, state: dict[str, Tensor]) -> None:
        """Give the base back what it needs."""
        self.base.load_inference_state(state)


@dataclass
class PostHoc(Modifier):
    """A modifier that acts on a trained run of its base, which it never trains again.

    By default nothing is trained. A fine-tuner says for how long and how; it trains with the attack
    and the loss of its base, in the stage that the base's training ended in, unless it overrides
    them.
    """

    kind: ClassVar[Kind] = "post-hoc"

    def adopt(self, net: Network, trained: dict[str, Tensor]) -> None:
        """Put the base's trained weights into a network with this method's head."""
        net.load_state_dict(trained)

    def fine_tuning(self, recipe: Recipe) -> Recipe | None:  # noqa: ARG002
        """How long and how to train on, given the base's recipe. Default: not at all."""
        return None

    def trainable(self, net: Network) -> Iterable[nn.Parameter]:
        """The parameters that a fine-tuning trains. Default: all that the base does."""
        return (p for p in net.parameters() if p.requires_grad)


def refuses_head(name: str, base: Method) -> str | None:
    """Say why a base does not fit a modifier that acts on a linear last layer; None: it fits."""
    head = base.head(2, base.num_classes)
    if type(head) is nn.Linear:
        return None
    return (
        f"{name} acts on a linear last layer, and that of {base.name} is a {type(head).__name__}; "
        "put it on a defense such as pgd-at"
    )


def adopt_linear(net: Network, trained: dict[str, Tensor], names: Mapping[str, str]) -> None:
    """Put the trained weights of a network with a linear last layer into one with another.

    Args:
        net: what it has beyond the linear layer stays as it is.
        trained: state dict of the network with the linear layer.
        names: the linear layer's parameters that are taken, by what the new head calls them.
    """
    mark = f"{net.head_name}."
    taken = {name: value for name, value in trained.items() if not name.startswith(mark)}
    taken |= {f"{mark}{new}": trained[f"{mark}{old}"] for new, old in names.items()}
    net.load_state_dict({**net.state_dict(), **taken})
