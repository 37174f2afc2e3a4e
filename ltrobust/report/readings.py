"""One score of one row with what qualifies it: deviation over seeds, or the interval of one seed.

The numbers are those of `aggregate.scores` and of the metric rows; nothing is averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltrobust.report.aggregate import scores
from ltrobust.report.groups import SCORE_COLUMNS, Group
from ltrobust.report.markup import percent

INTERVALS = {
    "accuracy": ("acc_ci_low", "acc_ci_high"),
    "balanced_accuracy": ("ci_low", "ci_high"),
    **{name: (f"{name}_ci_low", f"{name}_ci_high") for name in ("head", "medium", "tail")},
    "worst_class": ("worst_class_ci_low", "worst_class_ci_high"),
}
"""Score to the columns of its 95% interval over test images; older metrics lack some."""


@dataclass(frozen=True)
class Reading:
    """A score in [0, 1] (NaN: missing) with its deviation over seeds or, for one, its interval."""

    mean: float
    std: float
    n_seeds: int
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether every seed of the row has the score."""
        return not math.isnan(self.mean)

    @property
    def spread(self) -> str:
        """The deviation or interval in percent, in few signs; "" where there is neither."""
        if not self.known:
            return ""
        if self.n_seeds > 1:
            return f"± {percent(self.std)}"
        if math.isnan(self.low) or math.isnan(self.high):
            return ""
        return f"{percent(self.low)}–{percent(self.high)}"

    @property
    def words(self) -> str:
        """The deviation or interval in percent, in words; "" where there is neither."""
        if not self.spread:
            return ""
        if self.n_seeds > 1:
            return f"{self.spread} over {self.n_seeds} seeds"
        return f"95% interval {percent(self.low)} to {percent(self.high)}, 1 seed"

    @property
    def below(self) -> float:
        """Length of the error bar towards zero; NaN: none."""
        return self.std if self.n_seeds > 1 else self.mean - self.low

    @property
    def above(self) -> float:
        """Length of the error bar towards one; NaN: none."""
        return self.std if self.n_seeds > 1 else self.high - self.mean


Readings = Mapping[tuple[str, str, str], Reading]
"""Label, attack and score to reading; every combination of a group is there."""


def readings(group: Group) -> Readings:
    """Every score of a group, by label, attack and name of the score."""
    alone = {label for label in group.labels if len(group.runs(label)) == 1}
    single = {
        (row["label"], row["attack"]): row
        for row in group.rows.to_dict("records")
        if row["label"] in alone
    }
    found = {}
    for row in scores(group).to_dict("records"):
        label, attack = str(row["label"]), str(row["attack"])
        own = {str(name): value for name, value in single.get((label, attack), {}).items()}
        for name in (*SCORE_COLUMNS, "robust_gap"):
            low, high = _interval(own, name)
            found[label, attack, name] = Reading(
                row[f"{name}_mean"], row[f"{name}_std"], int(row["n_seeds"]), low, high
            )
    return found


def _interval(row: Mapping[str, Any], score: str) -> tuple[float, float]:
    low, high = (row.get(name, math.nan) for name in INTERVALS.get(score, ("", "")))
    return float(low), float(high)
