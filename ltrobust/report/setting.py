"""One group of comparable results with everything that is told of it, each number made once.

Tables, charts, page and files read settings; none of them averages. `board.py` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.report.confusion import Confusions
from ltrobust.report.cost import Cost
from ltrobust.report.estimate import MISSING, Estimate, over_seeds
from ltrobust.report.groups import MORE_SCORES, SCORE_COLUMNS, Group
from ltrobust.report.markup import Quantity
from ltrobust.report.ranking import Means, Ranking
from ltrobust.results.custom import own_metrics

SCORES = (*SCORE_COLUMNS, *MORE_SCORES)
INTERVALS = {
    "accuracy": ("acc_ci_low", "acc_ci_high"),
    "balanced_accuracy": ("ci_low", "ci_high"),
    **{name: (f"{name}_ci_low", f"{name}_ci_high") for name in ("head", "medium", "tail")},
    "worst_class": ("worst_class_ci_low", "worst_class_ci_high"),
}
"""Score to the columns of its 95% interval over test images."""
CURVES = ("train_loss", "train_robust_acc", "val_robust_acc")
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
class ClassFact:
    """A class: its index, name, number of training images and group ("" when unknown)."""

    index: int
    name: str
    n_train: int
    group: str = ""


@dataclass(frozen=True)
class Classes:
    """Per-class accuracies; classes from most to least frequent.

    Attributes:
        facts: the classes.
        cells: label, attack and class index to accuracy; `n` counts the class's test images.
    """

    facts: tuple[ClassFact, ...] = ()
    cells: Mapping[tuple[str, str, int], Estimate] = field(default_factory=dict)

    @cached_property
    def scored(self) -> frozenset[tuple[str, str]]:
        """Pairs of label and attack that have accuracies."""
        return frozenset((label, attack) for label, attack, _ in self.cells)

    def line(self, label: str, attack: str) -> list[Estimate]:
        """Accuracies of one label under one attack, in the order of `facts`."""
        return [self.cells.get((label, attack, fact.index), MISSING) for fact in self.facts]


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


@dataclass(frozen=True, kw_only=True)
class Setting(Group):
    """Results that may stand in one table, with their numbers.

    Attributes:
        protocol: what the setting is, in a few sentences.
        estimates: label, attack and score to estimate; every combination is there.
        ranking: the order of the labels.
        robust: the attack that is called robust; None without one.
        leads: attack and contest ("balanced" or "tail") to the best method's leads.
        classes: per-class accuracies.
        curves: training curves of the labels that have them.
        costs: what each label cost, best first.
        mistakes: predictions under the robust attack; None where they are not known.
        examples: attacked images, see `images.example_rows`.
        tails: run and attack id to the number of test images of the tail classes.
    """

    protocol: str
    estimates: Mapping[tuple[str, str, str], Estimate]
    ranking: Ranking
    robust: str | None
    leads: Mapping[tuple[str, str], Sequence[Lead]]
    classes: Classes
    curves: Mapping[str, Curve]
    costs: Sequence[Cost]
    mistakes: Confusions | None
    examples: pd.DataFrame
    tails: Mapping[tuple[str, str], int]

    @property
    def ranked(self) -> tuple[str, ...]:
        """Labels, best first."""
        return self.ranking.labels

    def estimate(self, label: str, attack: str | None, score: str) -> Estimate:
        """One score; `MISSING` where label or attack are not here."""
        return self.estimates.get((label, attack or "", score), MISSING)

    def within_noise(self, attack: str, contest: str) -> frozenset[str]:
        """Labels whose distance to the best is within noise."""
        leads = self.leads.get((attack, contest), ())
        return frozenset(lead.other for lead in leads if lead.verdict == NOISE)


def group_estimates(group: Group) -> dict[tuple[str, str, str], Estimate]:
    """Average every score of a group over seeds, by label, attack and score."""
    found: dict[tuple[str, str, str], Estimate] = {}
    images = int(group.key["n"])
    own = {metric.column: metric for metric in own_metrics()}
    for label in group.labels:
        runs = group.runs(label)
        for attack in group.attacks:
            by_run = {row["run_id"]: row for row in group.cells.get((label, attack), ())}
            rows = [by_run.get(run, {}) for run in runs]
            for score in (*SCORES, *own):
                low, high = INTERVALS.get(score, ("", ""))
                found[label, attack, score] = over_seeds(
                    [row.get(score, math.nan) for row in rows],
                    float(rows[0].get(low, math.nan)),
                    float(rows[0].get(high, math.nan)),
                    images,
                )
            for score in (name for name, metric in own.items() if not metric.share):
                one = found[label, attack, score]
                found[label, attack, score] = Quantity(one.value, std=one.std, n_seeds=one.n_seeds)
    return found


def balanced_means(estimates: Mapping[tuple[str, str, str], Estimate]) -> Means:
    """Balanced accuracies that every seed of a label has, by label and attack."""
    means: dict[str, dict[str, float]] = {}
    for (label, attack, score), found in estimates.items():
        own = means.setdefault(label, {})
        if score == "balanced_accuracy" and found.known:
            own[attack] = found.value
    return means


def group_leads(rows: pd.DataFrame) -> dict[tuple[str, str], list[Lead]]:
    """Read the comparisons of one setting."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.to_dict("records"):
        found.setdefault((str(row["attack"]), str(row["group"])), []).append(
            {str(name): value for name, value in row.items()}
        )
    leads = {}
    for cell, records in found.items():
        values = [_number(record, "p") for record in records]
        leads[cell] = [
            _lead(record, p, corrected)
            for record, p, corrected in zip(records, values, holm(values), strict=True)
        ]
    return leads


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


def _lead(record: Mapping[str, Any], p: float, corrected: float) -> Lead:
    images = _number(record, "n")
    return Lead(
        str(record["best"]),
        str(record["other"]),
        0 if math.isnan(images) else int(images),
        _number(record, "difference"),
        _number(record, "low"),
        _number(record, "high"),
        p,
        corrected,
        str(record["verdict"]),
        str(record["basis"]),
    )


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    return math.nan if value is None or pd.isna(value) else float(value)


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


@dataclass(frozen=True)
class ClassRow:
    """One row of per_class.csv."""

    fact: ClassFact
    n_test: int
    accuracy: float
    low: float
    high: float


ClassRows = Mapping[tuple[str, str], Sequence[ClassRow]]
"""Run and attack id to the rows of its classes."""


def class_rows(per_class: pd.DataFrame) -> ClassRows:
    """Sort the rows of per_class.csv by run and attack id, in one pass."""
    found: dict[tuple[str, str], list[ClassRow]] = {}
    if per_class.empty:
        return found
    names = ("run_id", "attack_id", "class_index", "class_name", "n_train", "n_test", "accuracy")
    columns = [per_class[name].tolist() for name in (*names, "ci_low", "ci_high", "group")]
    facts: dict[ClassFact, ClassFact] = {}
    for run, attack, index, name, n_train, n_test, accuracy, low, high, group in zip(
        *columns, strict=True
    ):
        kind = group if isinstance(group, str) else ""
        fact = ClassFact(int(index), str(name), int(n_train), kind)
        row = ClassRow(facts.setdefault(fact, fact), int(n_test), accuracy, low, high)
        found.setdefault((str(run), str(attack)), []).append(row)
    return found


def group_classes(group: Group, rows: ClassRows, ranked: Sequence[str]) -> Classes:
    """Average per-class accuracies over seeds; NaN where a seed lacks the attack."""
    facts: dict[ClassFact, None] = {}
    values: dict[tuple[str, str, int], list[ClassRow]] = {}
    for label in ranked:
        for attack in group.attacks:
            for row in group.cells.get((label, attack), ()):
                for one in rows.get((row["run_id"], row["attack_id"]), ()):
                    facts.setdefault(one.fact)
                    values.setdefault((label, attack, one.fact.index), []).append(one)
    cells = {}
    for (label, attack, index), found in values.items():
        missing = [math.nan] * (len(group.runs(label)) - len(found))
        accuracies = [one.accuracy for one in found] + missing
        first = found[0]
        cells[label, attack, index] = over_seeds(accuracies, first.low, first.high, first.n_test)
    order = sorted(facts, key=lambda fact: (-fact.n_train, fact.index))
    known = {fact.index: fact for fact in reversed(order)}
    return Classes(tuple(fact for fact in order if known[fact.index] is fact), cells)


def tail_images(per_class: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Test images of the tail classes, by run id and attack id.

    Args:
        per_class: rows of per_class.csv; may be empty.
    """
    if per_class.empty:
        return {}
    rows = per_class[per_class["group"] == "tail"]
    sums = rows.groupby(["run_id", "attack_id"])["n_test"].sum().reset_index()
    return {(str(run), str(attack)): int(n) for run, attack, n in sums.itertuples(index=False)}
