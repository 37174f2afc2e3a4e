"""Whose numbers a flagged reliability check puts in doubt.

Pure words: reports need them without any model. What the checks see is `reliability`'s.
"""

from __future__ import annotations

import re
from typing import Literal

Concern = Literal["all", "attacks", "first-order", "cross-entropy", "autoattack", "none"]
CONCERNS: dict[str, Concern] = {
    "non-finite-outputs": "all",
    "probability-outputs": "attacks",
    "tiny-logits": "cross-entropy",
    "wrong-normalisation": "all",
    "random-outputs": "all",
    "batch-dependent-outputs": "all",
    "came-in-train-mode": "none",
    "changes-its-images": "none",
    "vanishing-gradients": "attacks",
    "noise-stronger-than-fgsm": "attacks",
    "more-steps-not-stronger": "first-order",
    "accuracy-at-large-eps": "attacks",
    "square-stronger-than-gradients": "attacks",
    "pgd-above-cw-or-lsa": "cross-entropy",
    "pgd-above-autoattack": "cross-entropy",
    "autoattack-above-weaker-attack": "autoattack",
    "catastrophic-overfitting": "attacks",
}
"""Check to the numbers that it concerns: "all" (clean accuracy too), "attacks" (all but clean
accuracy and noise), "first-order" (gradient attacks other than AutoAttack), "cross-entropy" (fgsm,
PGD, MIM and LSA), "autoattack" (its variants), "none" (what is reported is right as it stands)."""
_CROSS_ENTROPY = re.compile(r"(fgsm|pgd|mim|lsa)")
_AUTOATTACK = re.compile(r"(autoattack|aa-)")


def concern(check: str) -> Concern:
    """What a check concerns; one that this version does not know concerns everything."""
    return CONCERNS.get(check, "all")


def concerns(check: str, attack: str) -> bool:
    """Whether a flagged check puts the numbers of an attack, given by its name, in doubt."""
    kind = concern(check)
    if kind in ("all", "none"):
        return kind == "all"
    if attack == "clean" or attack.startswith("noise"):
        return False
    if kind == "autoattack" or kind == "first-order":
        return (kind == "autoattack") == bool(_AUTOATTACK.match(attack))
    return kind == "attacks" or bool(_CROSS_ENTROPY.match(attack))
