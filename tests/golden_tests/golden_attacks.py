"""Settings of our PGD core for a stored evaluation attack; see the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from golden_store import Arguments
from torch import Tensor

from ltrobust import losses
from ltrobust.attacks.pgd import LossFn


@dataclass
class AttackCase:
    """What `ltrobust.attacks.pgd.pgd` is called with besides model, images, labels, start."""

    loss: LossFn
    steps: int
    step_size: float
    momentum: float | None = None


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def pgd(args: Arguments) -> AttackCase:
    return AttackCase(cross_entropy_sum, args.get("num_steps"), args.get("step_size"))


def cw(args: Arguments) -> AttackCase:
    loss = partial(losses.cw_margin_loss, confidence=args.get("confidence", 50))
    return AttackCase(loss, args.get("num_steps"), args.get("step_size"))


def lsa(args: Arguments) -> AttackCase:
    loss = partial(losses.scaled_cross_entropy, alpha=args.get("alpha", 1.0))
    return AttackCase(loss, args.get("num_steps"), args.get("step_size"))


def single_step(args: Arguments) -> AttackCase:
    args.must_be("num_steps", 1)
    return AttackCase(cross_entropy_sum, 1, args.get("step_size", args.get("epsilon")))


def mim(args: Arguments) -> AttackCase:
    return AttackCase(
        cross_entropy_sum,
        args.get("num_steps"),
        args.get("step_size"),
        args.get("decay_factor", 1.0),
    )
