"""The numbers of a table for machines: plain names, full precision, no signs beside them.

They become `tables/<name>.csv`. What a reader sees is made in `tables.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import ranked_labels, records_by_cell, scores
from ltrobust.report.groups import Group

_PARTS = ("mean", "std")


def method_scores(group: Group, wanted: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """A row a method, best first, for the given pairs of attack and score.

    Returns:
        Columns `setting, method`, what rows differ in, `n_seeds`, then `<attack>_<score>_mean` and
        `<attack>_<score>_std`.
    """
    frame = scores(group)
    cells = records_by_cell(frame)
    rows = []
    for label in ranked_labels(frame):
        row = _head(group, label)
        for attack, score in wanted:
            cell = cells[label, attack]
            row |= {f"{attack}_{score}_{part}": cell[f"{score}_{part}"] for part in _PARTS}
        rows.append(row)
    return pd.DataFrame(rows)


def attack_scores(group: Group, attacks: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """A row an attack and method, attack after attack, best method first.

    Returns:
        Columns `setting, attack, method`, what rows differ in, `n_seeds`, then `<score>_mean` and
        `<score>_std`.
    """
    frame = scores(group)
    cells = records_by_cell(frame)
    rows = []
    for attack in attacks:
        for label in ranked_labels(frame):
            cell = cells[label, attack]
            values = {f"{n}_{part}": cell[f"{n}_{part}"] for n in names for part in _PARTS}
            rows.append({"attack": attack, **_head(group, label), **values})
    columns = ["setting", "attack", "method", *group.differing, "n_seeds"]
    return pd.DataFrame(rows, columns=[*columns, *(f"{n}_{p}" for n in names for p in _PARTS)])


def _head(group: Group, label: str) -> dict[str, Any]:
    count = len(group.runs(label))
    return {"setting": group.slug, "method": label, **group.own(label), "n_seeds": count}
