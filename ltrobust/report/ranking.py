"""The one place that decides in which order methods stand, and by what.

A frame of averages comes in, names and a sentence go out. Tables, figures, the page and the CSV
files take their order from here; nothing is averaged and nothing is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ltrobust.report.groups import attack_family, attack_order

AUTOATTACK = "autoattack"
CLEAN = "clean"
_NO_ATTACK = ("clean", "noise")
_DIGITS = 12
"""Scores that agree in so many decimals are ties: means of equal numbers may differ in the last."""


@dataclass(frozen=True)
class Ranking:
    """The order of the rows of one table.

    Attributes:
        by: the attacks whose balanced accuracy decides, of several each row's lowest;
            `("clean",)` where no attack can decide.
        labels: all labels, best first, those without a rank last.
        scores: what decides, in [0, 1]; NaN for a label without a rank.
        attacked: whether any label was attacked at all.
    """

    by: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Mapping[str, float]
    attacked: bool

    @property
    def ranks(self) -> dict[str, int | None]:
        """Rank of each label, best first: 1 is best, ties share it, None without one."""
        known = [self.scores[label] for label in self.labels]
        return {
            label: None if math.isnan(score) else known.index(score) + 1
            for label, score in zip(self.labels, known, strict=True)
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
        """The basis as a sentence, and which rows have no rank."""
        without = [label for label in self.labels if math.isnan(self.scores[label])]
        more = f" Without a rank, since not measured so: {', '.join(without)}." if without else ""
        return f"Ranked by {self.basis}.{more}"


def ranking(frame: pd.DataFrame) -> Ranking:
    """Rank labels by robust balanced accuracy.

    By AutoAttack where every attacked label has it; else by each label's lowest score under the
    attacks that all attacked labels have; else, said aloud, by clean accuracy. Clean images and
    uniform noise are no attack. Labels that were never attacked, or lack a seed under what
    decides, come last and have no rank. Ties go by clean accuracy, then by name.

    Args:
        frame: columns `label`, `attack`, `balanced_accuracy_mean` (NaN: missing), as from
            `aggregate.scores`.
    """
    means = _means(frame, "balanced_accuracy_mean")
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

    return Ranking(deciding, tuple(sorted(means, key=place)), scores, attacked)


def common_attacks(frame: pd.DataFrame, score: str = "balanced_accuracy_mean") -> list[str]:
    """The attacks that all attacked labels have, weakest first; clean and noise are none.

    Args:
        frame: columns `label`, `attack` and `score` (NaN: missing).
        score: name of the column.
    """
    return _common(_means(frame, score))[0]


def is_attack(name: str) -> bool:
    """Whether a name is that of an adversarial attack: clean images and uniform noise are none."""
    return attack_family(name) not in _NO_ATTACK


def _means(frame: pd.DataFrame, score: str) -> dict[str, dict[str, float]]:
    """Label to attack to score, of those that are known."""
    means: dict[str, dict[str, float]] = {}
    for label, attack, mean in zip(frame["label"], frame["attack"], frame[score], strict=True):
        own = means.setdefault(str(label), {})
        if not math.isnan(mean):
            own[str(attack)] = float(mean)
    return means


def _common(means: Mapping[str, Mapping[str, float]]) -> tuple[list[str], bool]:
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
