"""One group of comparable results with everything that is told of it, each number made once.

Tables, charts, page and files read settings; none of them averages. `board.py` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.report.classes import Classes
from ltrobust.report.confusion import Confusions
from ltrobust.report.cost import Cost
from ltrobust.report.estimate import MISSING, Estimate
from ltrobust.report.groups import Group
from ltrobust.report.ranking import Means, Ranking

CURVES = ("train_loss", "train_robust_acc", "val_robust_acc")
CONTESTS = {"balanced_accuracy": "balanced", "tail": "tail"}
"""Scores by which the best method is set against the others, and what the contest is called."""
NOISE = "within noise"


@dataclass(frozen=True)
class Lead:
    """How far the best method lies before another, by one score under one attack.

    Attributes:
        p: of the test that the two are equal; NaN: no test.
        p_holm: the same, corrected by Holm (1979) for all methods that the best was tested against.
        basis: what the interval stands on: "paired images" or "seeds".
    """

    best: str
    other: str
    n: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str
    basis: str


@dataclass(frozen=True)
class Curve:
    """Training curves of one label, on the epochs that all its seeds have.

    Attributes:
        epochs: int, (E,).
        means: name of `CURVES` to means over seeds, (E,); NaN where a seed lacks one.
        stds: the same for deviations; NaN for one seed.
    """

    epochs: np.ndarray
    means: Mapping[str, np.ndarray]
    stds: Mapping[str, np.ndarray]

    def known(self, name: str) -> bool:
        """Whether any epoch has a value."""
        return not bool(np.isnan(self.means[name]).all())


@dataclass(frozen=True, eq=False, kw_only=True)
class Setting(Group):
    """Results that may stand in one table, with their numbers.

    Attributes:
        protocol: what the setting is, in a few sentences.
        ranking: the order of the labels.
        robust: the attack that is called robust; None without one.
        leads: attack and contest ("balanced" or "tail") to the best method's leads.
        classes: per-class accuracies.
        curves: training curves of the labels that have them.
        costs: what each label cost, best first.
        mistakes: predictions under the robust attack; None where they are not known.
        examples: attacked images, see `images.example_rows`.
        fewer: the same runs under AutoAttack on fewer test images, where it was too long for all.
    """

    protocol: str
    ranking: Ranking
    robust: str | None
    leads: Mapping[tuple[str, str], Sequence[Lead]]
    classes: Classes
    curves: Mapping[str, Curve]
    costs: Sequence[Cost]
    mistakes: Confusions | None
    examples: pd.DataFrame
    fewer: Setting | None = None

    @classmethod
    def of(cls, group: Group, **told: Any) -> Setting:
        """A group with what is told of it; what was computed of the group is kept."""
        made = cls(**{one.name: getattr(group, one.name) for one in fields(Group)}, **told)
        vars(made).update(vars(group))
        return made

    @property
    def ranked(self) -> tuple[str, ...]:
        """Labels, best first."""
        return self.ranking.labels

    @property
    def shown_attacks(self) -> list[str]:
        """Names of the attacks that its tables tell of: its own, and those on fewer images."""
        return [*self.attacks, *(() if self.fewer is None else self.fewer.attacks)]

    def estimate(self, label: str, attack: str | None, score: str) -> Estimate:
        """One score; `MISSING` where label or attack are not here."""
        return self.estimates.get((label, attack or "", score), MISSING)

    @property
    def on_fewer(self) -> list[str]:
        """Attacks that are shown of the setting on fewer images: AutoAttack, behind the one that
        stands for robustness on all where it was made there too."""
        if self.fewer is None:
            return []
        wanted = (self.robust, self.fewer.autoattack)
        return [name for name in wanted if name is not None and name in self.fewer.attacks]

    def label_of(self, other: Group, label: str) -> str:
        """What the runs are called here that another group of them calls `label`."""
        return next((self._calls[run] for run in other.runs(label) if run in self._calls), label)

    @cached_property
    def _calls(self) -> dict[str, str]:
        return {run: label for label in self.labels for run in self.runs(label)}

    def within_noise(self, attack: str, contest: str) -> frozenset[str]:
        """Labels whose distance to the best is within noise."""
        leads = self.leads.get((attack, contest), ())
        return frozenset(lead.other for lead in leads if lead.verdict == NOISE)


def balanced_means(estimates: Mapping[tuple[str, str, str], Estimate]) -> Means:
    """Balanced accuracies that every seed of a label has, by label and attack."""
    means: dict[str, dict[str, float]] = {}
    for (label, attack, score), found in estimates.items():
        own = means.setdefault(label, {})
        if score == "balanced_accuracy" and found.known:
            own[attack] = found.value
    return means


def setting_leads(
    comparisons: pd.DataFrame,
) -> dict[str, dict[tuple[str, str], list[Lead]]]:
    """Sort the rows of comparisons.csv by setting, then by attack and contest."""
    names = [one.name for one in fields(Lead)]
    found: dict[str, dict[tuple[str, str], list[Lead]]] = {}
    for row in comparisons.to_dict("records"):
        own = found.setdefault(row["setting"], {}).setdefault((row["attack"], row["group"]), [])
        own.append(Lead(**{name: row[name] for name in names}))
    return found


def holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down rule; NaN is no test.

    S. Holm. A simple sequentially rejective multiple test procedure. Scand. J. Statist. 1979. The
    k-th smallest of m is multiplied by m - k + 1; none is smaller than one before it, none above 1.
    """
    order = sorted(
        (place for place, p in enumerate(values) if not math.isnan(p)), key=values.__getitem__
    )
    corrected, largest = [math.nan] * len(values), 0.0
    for turn, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - turn) * values[place]))
        corrected[place] = largest
    return corrected


def group_curves(group: Group, histories: Mapping[str, pd.DataFrame]) -> dict[str, Curve]:
    """Average training histories over seeds; labels of which a run has none are left out."""
    found = {}
    for label in group.labels:
        runs = [histories.get(run_id) for run_id in group.runs(label)]
        tables = [run.set_index("epoch") for run in runs if run is not None and not run.empty]
        if len(tables) < len(runs):
            continue
        shared = sorted(set.intersection(*(set(table.index) for table in tables)))
        means, stds = {}, {}
        for name in CURVES:
            stacked = np.array(
                [
                    table[name].reindex(shared) if name in table else np.full(len(shared), np.nan)
                    for table in tables
                ],
                dtype=float,
            )
            means[name] = stacked.mean(axis=0)
            stds[name] = (
                stacked.std(axis=0, ddof=1) if len(tables) > 1 else np.full(len(shared), np.nan)
            )
        found[label] = Curve(np.array(shared, dtype=int), means, stds)
    return found
