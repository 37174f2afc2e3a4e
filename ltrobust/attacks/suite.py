"""The evaluation attacks by name: what `pgd20` or `autoattack` means, in full.

A name becomes an `AttackSpec` that holds every setting; nothing is decided later. This module runs
no attack.
"""

from __future__ import annotations

import re
from importlib.metadata import version

from ltrobust.attacks.pgd import LossFn
from ltrobust.config import AttackSpec
from ltrobust.errors import UserError, unknown
from ltrobust.losses import cross_entropy_sum, cw_margin_loss

PLAIN = ("clean", "fgsm", "autoattack")
COUNTED = ("pgd", "cw", "mim")
AUTOATTACK_BATCH = 250
"""pyautoattack's own default; its noise depends on the batch, so it is part of the settings."""


def attack_spec(name: str, eps: float, *, seed: int = 0) -> AttackSpec:
    """Return the full settings of an evaluation attack.

    `pgdN`, `cwN` and `mimN` take N steps of eps / 4 from one start drawn from uniform(-eps, eps);
    `cw` maximises the margin loss (confidence 50) in the same PGD; `mim` has momentum 1; `fgsm` is
    one step of eps without a random start; `autoattack` is the reference's standard version.

    Args:
        name: `clean`, `fgsm`, `pgdN`, `cwN`, `mimN` (N >= 1) or `autoattack`.
        eps: L-inf radius in [0, 1] image units.
        seed: seed of the attack's random start.

    Raises:
        UserError: the name is unknown.
    """
    ours = f"ltrobust {version('ltrobust')}"
    if name == "clean":
        return AttackSpec(name=name, kind="clean", eps=0.0, library=ours)
    if name == "autoattack":
        return AttackSpec(
            name=name,
            kind="autoattack",
            eps=eps,
            version="standard",
            library=f"pyautoattack {version('pyautoattack')}",
            batch_size=AUTOATTACK_BATCH,
            seed=seed,
        )
    if name == "fgsm":
        return AttackSpec(
            name=name,
            kind="first-order",
            eps=eps,
            loss="ce",
            steps=1,
            step_size=eps,
            start="none",
            library=ours,
        )
    counted = re.fullmatch(r"(pgd|cw|mim)([1-9]\d{0,4})", name)
    if counted is None:
        raise _unknown_attack(name)
    kind, steps = counted[1], int(counted[2])
    return AttackSpec(
        name=name,
        kind="first-order",
        eps=eps,
        library=ours,
        loss="cw" if kind == "cw" else "ce",
        steps=steps,
        step_size=eps / 4,
        start="uniform",
        momentum=1.0 if kind == "mim" else None,
        seed=seed,
    )


def _unknown_attack(name: str) -> UserError:
    if name in COUNTED:
        return UserError(f"attack '{name}' needs its number of steps, such as {name}20")
    known = [*PLAIN, "pgd20", "pgd100", "cw20", "mim20"]
    error = unknown("attack", name, known)
    return UserError(f"{error} (any number of steps in pgdN, cwN and mimN)")


LOSSES: dict[str, LossFn] = {"ce": cross_entropy_sum, "cw": cw_margin_loss}
"""The losses of first-order evaluation attacks, by the name in their spec."""
