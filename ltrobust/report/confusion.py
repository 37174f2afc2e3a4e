"""Into which classes images fall under the strongest attack: counts, and shares of a class.

Counts of runs that share a label (several training seeds) are added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.report.classes import ClassFact
from ltrobust.report.groups import Group

Counted = Mapping[tuple[str, str], np.ndarray]
"""Run and attack id to rows of true class, prediction and count, int (K, 3)."""


@dataclass(frozen=True)
class Confusions:
    """Predictions under one attack.

    Attributes:
        attack: its name.
        classes: from most to least frequent.
        counts: label to images, int (C, C): true class by prediction, in the order of `classes`;
            labels best first.
    """

    attack: str
    classes: Sequence[ClassFact]
    counts: Mapping[str, np.ndarray]


def counted_rows(confusion: pd.DataFrame) -> Counted:
    """Sort the rows of confusion.csv by run and attack id, in one pass."""
    values = confusion[["label", "pred", "count"]].to_numpy(dtype=int)
    keys = [confusion[name].to_numpy() for name in ("run_id", "attack_id")]
    indices: dict[Any, Any] = confusion.reset_index(drop=True).groupby(keys).indices
    return {key: values[rows] for key, rows in indices.items()}


def confusions(
    group: Group,
    attack: str | None,
    ranked: Sequence[str],
    classes: Sequence[ClassFact],
    counted: Counted,
) -> Confusions | None:
    """Collect what the methods of a group predict under one attack.

    Args:
        group: the results.
        attack: the one that is called robust.
        ranked: labels, best first.
        classes: from most to least frequent.
        counted: rows of confusion.csv, from `counted_rows`.

    Returns:
        None without an attack, groups of classes or rows. Labels of which a run has no rows are
        left out.
    """
    if attack is None or not any(fact.group for fact in classes):
        return None
    place = {fact.index: position for position, fact in enumerate(classes)}
    counts = {}
    for label in ranked:
        keys = [(row["run_id"], row["attack_id"]) for row in group.cells.get((label, attack), ())]
        if len(keys) == len(group.runs(label)) and all(key in counted for key in keys):
            matrix = np.zeros((len(place), len(place)), dtype=int)
            for key in keys:
                for true, pred, count in counted[key].tolist():
                    if pred in place:  # a foreign model may answer anything
                        matrix[place[true], place[pred]] += count
            counts[label] = matrix
    return Confusions(attack, classes, counts) if counts else None


def tail_predictions(
    mistakes: Confusions,
) -> Iterator[tuple[str, ClassFact, dict[ClassFact, int]]]:
    """Yield label, tail class and its predictions that occur, most frequent first, to images."""
    for label, matrix in mistakes.counts.items():
        for fact, counts in zip(mistakes.classes, matrix, strict=True):
            if fact.group == "tail" and counts.sum():
                order = np.argsort(-counts, kind="stable")
                found = {mistakes.classes[place]: int(counts[place]) for place in order}
                yield label, fact, {guess: count for guess, count in found.items() if count}
