"""A stored loss case of the second set: its inputs by their role, and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from golden_store import Arguments
from torch import Tensor


@dataclass
class LossCase:
    """What a loss is computed from.

    Attributes:
        inputs: tensors by their role.
        args: hyper-parameters; some hold the name of an array.
        array: an array of the case's group by its name.
        also: what the loss stores besides its value, for comparison.
    """

    inputs: dict[str, Tensor]
    args: Arguments
    array: Callable[[str], Tensor]
    also: dict[str, Tensor] = field(default_factory=dict)

    @property
    def logits(self) -> Tensor:
        """The only logits of a loss of one kind of images."""
        (name,) = (name for name in self.inputs if "logits" in name)
        return self.inputs[name]

    @property
    def labels(self) -> Tensor:
        return self.inputs["labels"]

    @property
    def counts(self) -> Tensor:
        return self.inputs["samples_per_cls"]

    def pair(self) -> tuple[Tensor, Tensor]:
        """Clean and adversarial logits."""
        cosine = "cos_" if "cos_logits" in self.inputs else ""
        return self.inputs[f"{cosine}logits"], self.inputs[f"{cosine}logits_adv"]
