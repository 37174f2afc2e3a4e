"""How much the reliability checks may do beside the attacks that they check.

Costs are counted in passes (one image, forward and back), never measured, so that the same
evaluation is checked in the same way on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ltrobust.attacks.suite import attack_spec
from ltrobust.config import AttackSpec
from ltrobust.evaluation.evaluate import Evaluator
from ltrobust.evaluation.normalisation import CONFIRMED, SCREENED
from ltrobust.evaluation.untouched import untouched

IMAGES = 128
"""Test images that a probe attacks."""
FEW_IMAGES = 16
"""The same where its budget is smallest."""
FLOOR = 4e12
"""Floating-point operations that a probe may always take: seconds on two CPU cores."""
QUERIES = 300
"""Square Attack's queries per image in a probe; AutoAttack makes 5,000."""
LARGE_EPS = 0.5
"""An L-inf radius that turns any image grey."""
WHITE_BOX = ("fgsm", "pgd20", "pgd50", "cw20", "lsa20")
PROBED = ("noise", *WHITE_BOX, f"pgd20@{LARGE_EPS}")
LONG = "pgd50"
"""Left out, with most of Square Attack's queries, where the budget is small."""
FEW_QUERIES = 100


@dataclass(frozen=True)
class Effort:
    """How much a probe does. Costs are in passes: one image, forward and back.

    Attributes:
        images: test images that are attacked.
        looked_at: test images of the experiments without an attack.
        confirmed: test images on which a normalisation that seems to help is tried again.
        attacks: names of the attacks.
        queries: Square Attack's queries per image.
    """

    images: int = IMAGES
    looked_at: int = IMAGES
    confirmed: int = CONFIRMED
    attacks: tuple[str, ...] = PROBED
    queries: int = QUERIES

    @property
    def passes(self) -> float:
        """At most so many passes, where every image stands to the end."""
        return (
            LOOKING * self.looked_at
            + 2 / 3 * self.confirmed
            + self.images * (sum(passes_of(name) for name in self.attacks) + self.queries / 3)
        )


LOOKING = 10.0
"""Passes for an image of the experiments without an attack, nearly all for the normalisations."""
FULL = Effort()


def effort(passes: float) -> Effort:
    """The largest effort within a number of passes, and never less than the smallest useful one."""
    if passes >= FULL.passes:
        return FULL
    thrifty = tuple(name for name in PROBED if name != LONG)
    least = Effort(FEW_IMAGES, SCREENED, SCREENED, thrifty, FEW_QUERIES)
    spare = max(0, int(passes - least.passes))
    confirmed = min(CONFIRMED, SCREENED + spare // 4)
    for attacks, queries, enough in ((PROBED, QUERIES, 2 * FEW_IMAGES), (thrifty, FEW_QUERIES, 0)):
        none = Effort(0, SCREENED, confirmed, attacks, queries)
        one = Effort(1, SCREENED, confirmed, attacks, queries)
        images = int((passes - none.passes) / (one.passes - none.passes))
        if images >= enough:
            break
    count = min(IMAGES, max(FEW_IMAGES, images))
    return Effort(count, SCREENED, confirmed, attacks, queries)


SHARE = 0.5
"""Of the passes of the attacks, so many may be added by the checks, and what `FLOOR` is worth."""
AUTOATTACK_PASSES = (100, 4000)
"""For an image that falls to AutoAttack and one that stands, about."""


def attack_passes(spec: AttackSpec, attacked: int, standing: int, num_classes: int) -> float:
    """About how many passes an attack took.

    Args:
        spec: the attack.
        attacked: images that were right without an attack.
        standing: images that are still right.
        num_classes: C, for the targets of targeted attacks.
    """
    if spec.kind == "autoattack":
        falls, stands = AUTOATTACK_PASSES
        return (spec.restarts or 1) * (falls * (attacked - standing) + stands * standing)
    tries = (spec.restarts or 1) * (num_classes - 1 if spec.loss == "targeted" else 1)
    return float(spec.steps or 0) * (attacked + (tries - 1) * standing)


def free_passes(evaluator: Evaluator) -> float:
    """Passes of a model that `FLOOR` is worth; 0 where its operations cannot be counted."""
    from torch.utils.flop_counter import FlopCounterMode

    few = evaluator.x(torch.arange(min(2, len(evaluator.test.labels))))
    try:
        counter = FlopCounterMode(display=False)
        with untouched(evaluator.model), counter, torch.no_grad():
            evaluator.model(few)
        operations = counter.get_total_flops() / len(few)
    except Exception:  # a foreign model may not bear being watched
        return 0.0
    return FLOOR / (3 * operations) if operations else math.inf


def passes_of(name: str) -> float:
    """Passes of an attack for an image that it attacks."""
    spec = attack_spec(name, 0.0)
    return float(spec.steps or 1 / 3)
