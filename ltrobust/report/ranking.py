"""The one place that decides in which order methods stand, and by what.

Averages come in, names and a sentence go out. Tables, figures, the page and the CSV files take
their order from here; nothing is averaged and nothing is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ltrobust.report.groups import attack_family, attack_order

AUTOATTACK = "autoattack"
CLEAN = "clean"
_NO_ATTACK = ("clean", "noise")
_DIGITS = 12
"""Scores that agree in so many decimals are ties: means of equal numbers may differ in the last."""
Means = Mapping[str, Mapping[str, float]]
"""Label to attack to balanced accuracy, of those that every seed has."""


@dataclass(frozen=True)
class Ranking:
    """The order of the rows of one table.

    Attributes:
        by: the attacks whose balanced accuracy decides, of several each row's lowest;
            `("clean",)` where no attack can decide.
        labels: all labels, best first, those without a rank last.
        scores: what decides, in [0, 1]; NaN for a label without a rank.
        attacked: whether any label was attacked at all.
        alike: labels whose distance to the best is within noise.
    """

    by: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Mapping[str, float]
    attacked: bool
    alike: Collection[str] = field(default=())

    @property
    def ranks(self) -> dict[str, int | None]:
        """Rank of each label, 1 is best, None without one.

        Ties share a rank; so does, with the best, whoever is within noise of it, down to the first
        label that is not.
        """
        known = [self.scores[label] for label in self.labels]
        first = 0  # labels that share the first rank
        while first < len(known) and not math.isnan(known[first]):
            if known[first] != known[0] and self.labels[first] not in self.alike:
                break
            first += 1
        return {
            label: None if math.isnan(score) else 1 if place < first else known.index(score) + 1
            for place, (label, score) in enumerate(zip(self.labels, known, strict=True))
        }

    @property
    def name(self) -> str:
        """By what the rows are ranked, in few words: `autoattack`, `lowest of cw20, pgd20`."""
        return self.by[0] if len(self.by) == 1 else f"lowest of {', '.join(self.by)}"

    @property
    def basis(self) -> str:
        """By what the rows are ranked, for a reader."""
        if self.by == (CLEAN,):
            why = "no attack was run on all methods" if self.attacked else "no method was attacked"
            return f"balanced accuracy on CLEAN images ({why})"
        if len(self.by) == 1:
            return f"balanced accuracy under {self.by[0]}"
        names = f"{', '.join(self.by[:-1])} and {self.by[-1]}"
        return f"each method's lowest balanced accuracy under {names}, the attacks that all have"

    @property
    def sentence(self) -> str:
        """The basis as a sentence, which rows share the first rank, and which have none."""
        without = [label for label in self.labels if math.isnan(self.scores[label])]
        more = f" Without a rank, since not measured so: {', '.join(without)}." if without else ""
        best = max((s for s in self.scores.values() if not math.isnan(s)), default=math.nan)
        shared = [one for one, rank in self.ranks.items() if rank == 1 and self.scores[one] < best]
        if shared:
            more = f" Within noise of the best, and so of its rank: {', '.join(shared)}.{more}"
        return f"Ranked by {self.basis}.{more}"


def ranking(means: Means, alike: Mapping[str, Collection[str]] | None = None) -> Ranking:
    """Rank labels by robust balanced accuracy.

    By AutoAttack where every attacked label has it; else by each label's lowest score under the
    attacks that all attacked labels have; else, said aloud, by clean accuracy. Clean images and
    uniform noise are no attack. Labels that were never attacked, or lack a seed under what
    decides, come last and have no rank. Ties go by clean accuracy, then by name.

    Args:
        means: of each label, those that are known.
        alike: attack to the labels that are within noise of the best under it.
    """
    common, attacked = _common(means)
    deciding = _deciding(common)
    scores = {
        label: round(min(own.get(attack, math.nan) for attack in deciding), _DIGITS)
        if all(attack in own for attack in deciding)
        else math.nan
        for label, own in means.items()
    }

    def place(label: str) -> tuple[float, float, str]:
        return _last(scores[label]), _last(means[label].get(CLEAN, math.nan)), label

    near = (alike or {}).get(deciding[0], ()) if len(deciding) == 1 else ()
    return Ranking(deciding, tuple(sorted(means, key=place)), scores, attacked, near)


def is_attack(name: str) -> bool:
    """Whether a name is that of an adversarial attack: clean images and uniform noise are none."""
    return attack_family(name) not in _NO_ATTACK


def strongest_attack(attacks: Sequence[str]) -> str | None:
    """Pick the strongest attack by its name: AutoAttack, else the longest PGD, else any.

    Names are expected weakest first, as in `Group.attacks`.
    """
    adversarial = [name for name in attacks if is_attack(name)]
    for family in ("autoattack", "aa-apgd", "pgd"):
        own = [name for name in adversarial if name.startswith(family)]
        if own:
            return family if family in own else own[-1]
    return next(reversed(adversarial), None)


def robust_attack(means: Means, attacks: Sequence[str]) -> str | None:
    """Pick the attack that tables and figures call "robust": the strongest that all rows have.

    Rows that were never attacked do not count; where no attack is common, the strongest of any.
    """
    return strongest_attack(_common(means)[0] or attacks)


def class_attacks(attacks: Sequence[str]) -> list[str]:
    """Pick the attacks that a short table shows: clean, the longest PGD, the strongest one.

    Names are expected weakest first, as in `Group.attacks`.
    """
    pgd = [name for name in attacks if name.startswith("pgd")]
    wanted = ["clean", *pgd[-1:], strongest_attack(attacks)]
    return [name for name in attacks if name in wanted]


def _common(means: Means) -> tuple[list[str], bool]:
    """The attacks that all attacked labels have, weakest first, and whether any was attacked."""
    known = [{name for name in own if is_attack(name)} for own in means.values()]
    attacked = [names for names in known if names]
    common = set.intersection(*attacked) if attacked else set()
    return sorted(common, key=attack_order), bool(attacked)


def _deciding(common: Sequence[str]) -> tuple[str, ...]:
    """Which of the common attacks decide."""
    full = [name for name in common if attack_family(name) == AUTOATTACK]
    if AUTOATTACK in full:
        return (AUTOATTACK,)
    return tuple(full if len(full) == 1 else common) or (CLEAN,)


def _last(score: float) -> float:
    """Sort key: best first, missing last."""
    return math.inf if math.isnan(score) else -score
