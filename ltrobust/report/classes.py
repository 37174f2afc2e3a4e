"""Accuracies class by class: which classes a setting has, and what each method reaches on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from ltrobust.report.estimate import MISSING, Estimate, over_seeds
from ltrobust.report.groups import Group

_COLUMNS = (
    *("run_id", "attack_id", "class_index", "class_name", "n_train", "group", "n_test"),
    *("accuracy", "ci_low", "ci_high"),
)


@dataclass(frozen=True)
class ClassFact:
    """A class: its index, name, number of training images and group (None where there are none)."""

    index: int
    name: str
    n_train: int
    group: str | None = None


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


ClassRows = Mapping[tuple[str, str], Sequence[Any]]
"""Run and attack id to the rows of its classes, as named tuples."""


def class_rows(per_class: pd.DataFrame) -> ClassRows:
    """Sort the rows of per_class.csv by run and attack id, in one pass."""
    found: dict[tuple[str, str], list[Any]] = {}
    rows: Any = per_class[list(_COLUMNS)].itertuples(index=False)
    for row in rows:
        found.setdefault((row.run_id, row.attack_id), []).append(row)
    return found


def group_classes(group: Group, rows: ClassRows, ranked: Sequence[str]) -> Classes:
    """Average per-class accuracies over seeds; NaN where a seed lacks the attack."""
    facts: dict[ClassFact, None] = {}
    values: dict[tuple[str, str, int], list[Any]] = {}
    for label in ranked:
        for attack in group.attacks:
            for cell in group.cells.get((label, attack), ()):
                for row in rows.get((cell["run_id"], cell["attack_id"]), ()):
                    facts.setdefault(
                        ClassFact(row.class_index, row.class_name, row.n_train, row.group)
                    )
                    values.setdefault((label, attack, row.class_index), []).append(row)
    cells = {}
    for (label, attack, index), found in values.items():
        missing = [math.nan] * (len(group.runs(label)) - len(found))
        first = found[0]
        cells[label, attack, index] = over_seeds(
            [*(row.accuracy for row in found), *missing], first.ci_low, first.ci_high, first.n_test
        )
    known: dict[int, ClassFact] = {}
    for fact in sorted(facts, key=lambda fact: (-fact.n_train, fact.index)):
        known.setdefault(fact.index, fact)
    return Classes(tuple(known.values()), cells)
