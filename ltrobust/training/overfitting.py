"""Whether a training with few attack steps has lost all robustness to longer attacks.

Catastrophic overfitting (Wong, Rice, Kolter, "Fast is better than free", ICLR 2020): within a few
epochs a network learns to beat its one-step training attack and falls to PGD. It is measured here,
on training images; `evaluation.reliability` judges what was measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ltrobust.attacks.pgd import attack_mode, pgd
from ltrobust.config import TrainingAttack
from ltrobust.data.augment import enlarge, to_float
from ltrobust.evaluation.reliability import OVERFITTED
from ltrobust.losses import cross_entropy_sum
from ltrobust.method import Method
from ltrobust.models import Network
from ltrobust.seeds import generator
from ltrobust.training.feed import chosen_images

FEW_STEPS = 2
"""Attacks of more steps have not been seen to overfit so."""
IMAGES, STEPS = 128, 10


def pgd_accuracy(
    net: Network, method: Method, images: Tensor, labels: Tensor, attack: TrainingAttack, seed: int
) -> float:
    """Share of a fixed sample of training images that stand PGD-10 with steps of eps / 4.

    Args:
        net: the network in training; its mode is put back.
        method: its defense, whose adjustment the attack sees.
        images: uint8 (N, C, H, W), on the network's device or on the host; not augmented.
        labels: int64 (N,), on the network's device.
        attack: the training attack, for its radius.
        seed: the run's seed; draws the images and the start.
    """
    draw = generator("cpu", seed, "overfitting")
    chosen = torch.randperm(len(labels), generator=draw)[:IMAGES].to(labels.device)
    found = chosen_images(images, chosen, labels.device)
    x, y = to_float(enlarge(found, net.input_size)), labels[chosen]
    start = torch.empty(x.shape).uniform_(-attack.eps, attack.eps, generator=draw).to(x.device)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy_sum(method.adjust(logits), labels)

    x_adv = pgd(
        net, x, y, eps=attack.eps, step_size=attack.eps / 4, steps=STEPS, loss=loss, start=start
    )
    with attack_mode(net), torch.no_grad():
        right = method.adjust(net(x_adv)).argmax(1) == y
    return float(right.float().mean())


def warning(pgd: float, own: float) -> str | None:
    """One line where PGD leaves hardly anything of what stands the training attack.

    Args:
        pgd: accuracy under PGD, in [0, 1].
        own: accuracy under the training attack.
    """
    if not own or 1 - pgd / own <= OVERFITTED / 100:
        return None
    return (
        f"  catastrophic overfitting: {100 * own:.1f}% stand the training attack and "
        f"{100 * pgd:.1f}% PGD-{STEPS}; use more steps (--recipe unified) or a lower rate"
    )
