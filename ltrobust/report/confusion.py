"""Into which classes images fall under the strongest attack: counts, and shares of a row.

Counts of runs that share a label (several training seeds) are added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.report.groups import Group

_DESTINATIONS = ("1st", "2nd", "3rd")


@dataclass(frozen=True)
class Confusions:
    """Predictions under one attack.

    Attributes:
        attack: its name.
        classes: class_index, class_name, n_train, group; from most to least frequent.
        counts: label to images, int (C, C): true class by prediction, in the order of `classes`;
            labels best first.
    """

    attack: str
    classes: pd.DataFrame
    counts: Mapping[str, np.ndarray]


def confusions(
    group: Group,
    attack: str | None,
    ranked: Sequence[str],
    facts: Sequence[Any],
    counted: Counted,
) -> Confusions | None:
    """Collect what the methods of a group predict under one attack.

    Args:
        group: the results.
        attack: the one that is called robust.
        ranked: labels, best first.
        facts: the classes, see `setting.ClassFact`.
        counted: rows of confusion.csv, from `counted_rows`.

    Returns:
        None without an attack, groups of classes or rows. Labels of which a run has no rows are
        left out.
    """
    if attack is None or not counted or not any(fact.group for fact in facts):
        return None
    columns = ["class_index", "class_name", "n_train", "group"]
    rows = [(fact.index, fact.name, fact.n_train, fact.group) for fact in facts]
    classes = pd.DataFrame(rows, columns=columns)
    place = {fact.index: position for position, fact in enumerate(facts)}
    counts = {}
    for label in ranked:
        keys = [(row["run_id"], row["attack_id"]) for row in group.cells.get((label, attack), ())]
        if len(keys) == len(group.runs(label)) and all(key in counted for key in keys):
            counts[label] = np.sum([_matrix(counted[key], place) for key in keys], axis=0)
    return Confusions(attack, classes, counts) if counts else None


Counted = Mapping[tuple[str, str], np.ndarray]
"""Run and attack id to rows of true class, prediction and count, int (K, 3)."""


def counted_rows(confusion: pd.DataFrame | None) -> Counted:
    """Sort the rows of confusion.csv by run and attack id, in one pass."""
    if confusion is None or confusion.empty:
        return {}
    values = confusion[["label", "pred", "count"]].to_numpy(dtype=int)
    keys = [confusion["run_id"].astype(str), confusion["attack_id"]]
    grouped = confusion.reset_index(drop=True).groupby([key.to_numpy() for key in keys])
    indices: dict[Any, Any] = grouped.indices
    return {(str(run), str(attack)): values[rows] for (run, attack), rows in indices.items()}


def destinations(mistakes: Confusions, label: str) -> list[dict[str, Any]]:
    """Table rows of the tail classes: class, n_train, share right, the most frequent mistakes."""
    names = [str(name) for name in mistakes.classes["class_name"]]
    rows = []
    for place, fact in enumerate(mistakes.classes.to_dict("records")):
        counts = mistakes.counts[label][place]
        if fact["group"] != "tail" or not counts.sum():
            continue
        shares = counts / counts.sum()
        wrong = [c for c in np.argsort(-shares, kind="stable") if c != place and shares[c] > 0]
        cells = [f"{names[c]} {100 * shares[c]:.2f}" for c in wrong[: len(_DESTINATIONS)]]
        cells += ["-"] * (len(_DESTINATIONS) - len(cells))
        rows.append(
            {
                "class": names[place],
                "n_train": int(fact["n_train"]),
                "right": float(shares[place]),
                **dict(zip(_DESTINATIONS, cells, strict=True)),
            }
        )
    return rows


def confused_shares(mistakes: Confusions) -> pd.DataFrame:
    """Predictions on the tail classes, a row each that occurs, most frequent first in its class.

    Returns:
        Columns `attack, method, class_index, class_name, n_train, prediction, n` (test images of
        the class), `share`, a fraction in [0, 1].
    """
    facts = mistakes.classes.to_dict("records")
    rows = [
        {
            "attack": mistakes.attack,
            "method": label,
            "class_index": fact["class_index"],
            "class_name": fact["class_name"],
            "n_train": fact["n_train"],
            "prediction": facts[place]["class_name"],
            "n": int(counts.sum()),
            "share": counts[place] / counts.sum(),
        }
        for label, matrix in mistakes.counts.items()
        for fact, counts in zip(facts, matrix, strict=True)
        if fact["group"] == "tail"
        for place in np.argsort(-counts, kind="stable")
        if counts[place]
    ]
    return pd.DataFrame(rows)


def _matrix(rows: np.ndarray, place: Mapping[int, int]) -> np.ndarray:
    """Counts (C, C) of one run, classes in the given order."""
    counts = np.zeros((len(place), len(place)), dtype=int)
    for label, pred, count in rows.tolist():
        if pred in place:  # a foreign file may hold anything
            counts[place[label], place[pred]] += count
    return counts
