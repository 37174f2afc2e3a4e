"""The evaluation attacks by name: what `pgd20` or `autoattack` means, in full.

A name becomes an `AttackSpec` that holds every setting; nothing is decided later. This module runs
no attack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

from ltrobust.attacks.autoattack import VERSIONS
from ltrobust.attacks.custom import ATTACKS, BATCH
from ltrobust.attacks.pgd import LossFn
from ltrobust.config import ATTACK_PROTOCOL, AttackSpec, fraction
from ltrobust.errors import UserError, unknown
from ltrobust.losses import (
    cross_entropy_sum,
    cw_margin_loss,
    dlr_loss,
    scaled_cross_entropy,
    targeted_cross_entropy,
)
from ltrobust.sources import source_of

PLAIN = ("clean", "fgsm", "noise", *VERSIONS)
COUNTED = ("pgd", "cw", "mim", "lsa", "dlr", "tpgd")
OURS = "ltrobust"
"""The library of our own attacks. No version: `ATTACK_PROTOCOL` says what may be compared."""
AUTOATTACK_BATCH = 250
"""pyautoattack's own default; its noise depends on the batch, so it is part of the settings."""
L2_EPS = 0.5
"""Radius of L2 attacks where none is given: the field's usual one on CIFAR."""
LSA_ALPHA = 10.0
GRAMMAR = re.compile(
    rf"(?P<family>{'|'.join((*PLAIN, *COUNTED))})"
    r"(?P<steps>[1-9][0-9]{0,4})?(?:a(?P<alpha>[1-9][0-9]{0,3}))?"
    r"(?:x(?P<restarts>[1-9][0-9]{0,2}))?(?P<l2>-l2)?(?:@(?P<eps>[0-9./]+))?"
)


@dataclass(frozen=True)
class _Name:
    """A name taken apart."""

    name: str
    family: str
    steps: int | None
    alpha: float | None
    restarts: int | None
    norm: Literal["Linf", "L2"]
    eps: float | None


def attack_spec(
    name: str, eps: float, *, seed: int = 0, search: Literal["bf16"] | None = None
) -> AttackSpec:
    """Return the full settings of an evaluation attack.

    `pgdN`, `cwN`, `mimN`, `lsaN`, `dlrN` and `tpgdN` take N steps of eps / 4 from one start drawn
    uniformly from the eps ball. They maximise: the cross-entropy; the margin loss (confidence 50);
    the cross-entropy with momentum 1; the cross-entropy of 10 times the logits (`lsaNaA`: A times);
    the difference of logits ratio; and, turn by turn, the cross-entropy towards each other class.
    `fgsm` is one step of eps without a random start, `noise` the start alone. `autoattack` is the
    reference's standard version, `aa-apgd` its APGD-CE and APGD-T alone (what RoBal's paper calls
    AA), `aa-rand` its version for randomised defenses.

    Three endings may follow, in this order: `xR` (R starts or seeds, each image keeps its worst),
    `-l2` (the L2 ball) and `@EPS` (this radius, such as `@16/255` or `@0.5`).

    Args:
        name: such as `clean`, `pgd20`, `lsa20`, `pgd20x5-l2@0.5`, `autoattack`.
        eps: L-inf radius in [0, 1] image units; L2 attacks take 0.5 unless their name says it.
        seed: seed of the attack's random numbers.
        search: "bf16" looks for adversarial images in bfloat16; verdicts stay float32.

    Raises:
        UserError: the name is unknown, or its ending does not go with it.
    """
    plain, _, radius_text = name.partition("@")
    if plain in ATTACKS:
        own_eps = _radius(name, radius_text, "Linf") if radius_text else eps
        return _custom(plain, name, own_eps, seed)
    asked = _take_apart(name)
    l2 = asked.norm == "L2"
    radius = asked.eps if asked.eps is not None else L2_EPS if l2 else eps
    if asked.family == "clean":
        return AttackSpec(name="clean", asked=name, kind="clean", eps=0.0, library=OURS)
    common: dict[str, Any] = {
        "name": asked.name,
        "asked": name,
        "eps": radius,
        "norm": asked.norm,
        "restarts": asked.restarts,
        "search": search,
        "protocol": ATTACK_PROTOCOL if ATTACK_PROTOCOL > 1 else None,
        "seed": seed,
    }
    if asked.family in VERSIONS:
        return AttackSpec(
            kind="autoattack",
            version=VERSIONS[asked.family],
            library=f"pyautoattack {version('pyautoattack')}",
            batch_size=AUTOATTACK_BATCH,
            **common,
        )
    return AttackSpec(kind="first-order", library=OURS, **common, **_first_order(asked, radius))


def _custom(name: str, asked: str, eps: float, seed: int) -> AttackSpec:
    return AttackSpec(
        name=ATTACKS.canonical(name),
        asked=asked,
        kind="custom",
        eps=eps,
        library="a plugin",
        batch_size=BATCH,
        seed=seed,
        source=source_of(ATTACKS.get(name)),
    )


def _first_order(asked: _Name, eps: float) -> dict[str, Any]:
    """What the PGD core is told besides norm and radius."""
    if asked.family == "fgsm":
        return {"loss": "ce", "steps": 1, "step_size": eps, "start": "none"}
    if asked.family == "noise":
        return {"loss": "ce", "steps": 0, "step_size": 0.0, "start": "uniform"}
    losses = {"pgd": "ce", "mim": "ce", "tpgd": "targeted"}
    alpha = LSA_ALPHA if asked.alpha is None else asked.alpha
    return {
        "loss": losses.get(asked.family, asked.family),
        "alpha": alpha if asked.family == "lsa" else None,
        "steps": asked.steps,
        "step_size": eps / 4,
        "start": "uniform",
        "momentum": 1.0 if asked.family == "mim" else None,
    }


def _take_apart(name: str) -> _Name:
    match = GRAMMAR.fullmatch(name)
    if match is None:
        raise _unknown_attack(name)
    family = match["family"]
    part = match.groupdict()
    if family in COUNTED and part["steps"] is None:
        raise UserError(f"attack '{name}' needs its number of steps, such as {family}20")
    if (family in PLAIN and part["steps"]) or (part["alpha"] is not None and family != "lsa"):
        raise _unknown_attack(name)
    if family == "clean" and name != "clean":
        raise UserError(f"attack '{name}': clean images have no attack; write clean")
    if family == "fgsm" and part["restarts"]:
        raise UserError(f"attack '{name}': fgsm starts at the image itself; leave out the restarts")
    norm: Literal["Linf", "L2"] = "L2" if part["l2"] else "Linf"
    return _Name(
        name=name.partition("@")[0],
        family=family,
        steps=int(part["steps"]) if part["steps"] else None,
        alpha=float(part["alpha"]) if part["alpha"] is not None else None,
        restarts=int(part["restarts"]) if part["restarts"] else None,
        norm=norm,
        eps=_radius(name, part["eps"], norm) if part["eps"] is not None else None,
    )


def _radius(name: str, text: str, norm: str) -> float:
    """The radius behind the @: a decimal number or a fraction."""
    try:
        eps = float(fraction(text))
    except ValueError:
        raise UserError(f"attack '{name}': after @ goes a radius such as 8/255 or 0.5") from None
    if norm == "Linf" and eps > 1:
        raise UserError(f"attack '{name}': an L-inf radius is in [0, 1] image units, got {eps:g}")
    return eps


def _unknown_attack(name: str) -> UserError:
    known = [*ATTACKS, *PLAIN, "pgd20", "pgd100", "cw20", "mim20", "lsa20", "dlr20", "tpgd20"]
    error = unknown("attack", name, known)
    return UserError(
        f"{error} (any number of steps in pgdN, cwN, mimN, lsaN, dlrN, tpgdN; endings xR, -l2, "
        "@EPS)"
    )


LOSSES: dict[str, LossFn] = {
    "ce": cross_entropy_sum,
    "cw": cw_margin_loss,
    "lsa": scaled_cross_entropy,
    "dlr": dlr_loss,
    "targeted": targeted_cross_entropy,
}
"""The losses of first-order evaluation attacks, by the name in their spec."""


def attack_loss(spec: AttackSpec) -> LossFn:
    """The loss that a first-order attack maximises."""
    assert spec.loss is not None
    if spec.alpha is not None:
        return partial(scaled_cross_entropy, alpha=spec.alpha)
    return LOSSES[spec.loss]
