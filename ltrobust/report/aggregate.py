"""Means and standard deviations over seeds, as tidy frames that tables and figures draw from.

A mean is taken over all seeds of a row or not at all: one missing value makes it NaN. Nothing here
formats a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.report.groups import MORE_SCORES, SCORE_COLUMNS, Group, attack_order
from ltrobust.report.ranking import common_attacks, is_attack, ranking

MATCH_COLUMNS = ("eps", "test_protocol", "attack_settings", "attack_library")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of a fraction in [0, 1] over `n` seeds."""

    mean: float
    std: float
    n: int


def over_seeds(values: Sequence[float]) -> Spread:
    """Average one value a seed; a missing value refuses the mean, one seed has no deviation."""
    numbers = np.asarray(values, dtype=float)
    if numbers.size == 0 or np.isnan(numbers).any():
        return Spread(math.nan, math.nan, int(numbers.size))
    std = float(numbers.std(ddof=1)) if numbers.size > 1 else math.nan
    return Spread(float(numbers.mean()), std, int(numbers.size))


def scores(group: Group) -> pd.DataFrame:
    """Average every score of a group over seeds.

    Returns:
        One row per label and attack, best label first, with columns `label, attack, n_seeds` and,
        for each of `SCORE_COLUMNS` and `MORE_SCORES`, the Spread over seeds as `<score>_mean` and
        `<score>_std`.
    """
    return _scores(group).copy(deep=False)


@lru_cache(maxsize=16)
def _scores(group: Group) -> pd.DataFrame:
    """The scores of a group, which every table, figure and sentence of a report asks for."""
    rows = {(row["run_id"], row["attack"]): row for row in group.rows.to_dict("records")}
    records = []
    for label in group.labels:
        runs = group.runs(label)
        for attack in group.attacks:
            cells = [rows.get((run, attack), {}) for run in runs]
            record: dict[str, object] = {"label": label, "attack": attack, "n_seeds": len(runs)}
            for name in (*SCORE_COLUMNS, *MORE_SCORES):
                spread = over_seeds([cell.get(name, math.nan) for cell in cells])
                record |= {f"{name}_mean": spread.mean, f"{name}_std": spread.std}
            records.append(record)
    frame = pd.DataFrame(records)
    order = {label: place for place, label in enumerate(ranked_labels(frame))}
    return frame.sort_values("label", key=lambda s: s.map(order), kind="stable", ignore_index=True)


def records_by_cell(frame: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of a `scores` frame as plain dicts, keyed by label and attack."""
    rows = frame.to_dict("records")
    return {(row["label"], row["attack"]): {str(k): v for k, v in row.items()} for row in rows}


def ranked_labels(frame: pd.DataFrame) -> list[str]:
    """Labels of a `scores` frame in the order of its `ranking`, best first."""
    return list(ranking(frame).labels)


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


def robust_attack(frame: pd.DataFrame) -> str | None:
    """Pick the attack that tables and figures call "robust": the strongest that all rows have.

    Rows that were never attacked do not count; where no attack is common, the strongest of any.

    Args:
        frame: from `scores`.
    """
    names = sorted(frame["attack"].unique(), key=attack_order)
    return strongest_attack(common_attacks(frame) or names)


def class_attacks(attacks: Sequence[str]) -> list[str]:
    """Pick the attacks that a short table shows: clean, the longest PGD, the strongest one.

    Names are expected weakest first, as in `Group.attacks`.
    """
    pgd = [name for name in attacks if name.startswith("pgd")]
    wanted = ["clean", *pgd[-1:], strongest_attack(attacks)]
    return [name for name in attacks if name in wanted]


def class_scores(group: Group, per_class: pd.DataFrame) -> pd.DataFrame:
    """Average per-class accuracy of a group over seeds.

    `per_class` names no perturbation budget; where a run and attack have several blocks of rows,
    the block is taken whose image count and mean over classes are those of the metric row.

    Returns:
        Columns `label, attack, class_index, class_name, n_train, accuracy_mean, accuracy_std,
        n_seeds`, most frequent class first; labels in
        leaderboard order; NaN where a seed lacks the attack.
    """
    known = per_class.assign(run_id=per_class["run_id"].astype(str))
    blocks = dict(list(known.groupby(["run_id", "attack"], sort=False)))
    found = [
        _class_block(blocks[row["run_id"], row["attack"]], row).assign(label=row["label"])
        for _, row in group.rows.iterrows()
        if (row["run_id"], row["attack"]) in blocks
    ]
    columns = ["label", "attack", "class_index", "class_name", "n_train"]
    if not found or all(block.empty for block in found):
        return pd.DataFrame(columns=[*columns, "accuracy_mean", "accuracy_std", "n_seeds"])
    seeds = {label: len(group.runs(label)) for label in group.labels}
    records = []
    by_cell: dict[tuple[Any, ...], list[float]] = {}
    for *cell, accuracy in pd.concat(found)[[*columns, "accuracy"]].itertuples(index=False):
        by_cell.setdefault(tuple(cell), []).append(accuracy)
    for key, known_values in by_cell.items():
        n_seeds = seeds[key[0]]
        values = known_values + [math.nan] * (n_seeds - len(known_values))
        spread = over_seeds(values)
        records.append((*key, spread.mean, spread.std, n_seeds))
    frame = pd.DataFrame(records, columns=[*columns, "accuracy_mean", "accuracy_std", "n_seeds"])
    place = {label: rank for rank, label in enumerate(ranked_labels(scores(group)))}
    return (
        frame.assign(place=frame["label"].map(place))
        .sort_values(
            ["n_train", "class_index", "place"], ascending=[False, True, True], kind="stable"
        )
        .drop(columns="place")
        .reset_index(drop=True)
    )


def tail_images(per_class: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Test images of the tail classes, by run id and attack id; none where rows do not name both.

    Args:
        per_class: rows of per_class.csv; may be empty.
    """
    if not {"group", "attack_id"} <= set(per_class):
        return {}
    rows = per_class[per_class["group"] == "tail"]
    sums = rows.groupby(["run_id", "attack_id"])["n_test"].sum().reset_index()
    return {(str(run), str(attack)): int(n) for run, attack, n in sums.itertuples(index=False)}


def training_curves(group: Group, histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Average training histories of a group over seeds, on the epochs that all seeds have.

    Returns:
        Columns `label, epoch` and `<column>_mean`, `<column>_std` for `train_loss`,
        `train_robust_acc` and `val_robust_acc` (NaN where no epoch was judged); labels of which a
        run has no history are left out.
    """
    curves = ("train_loss", "train_robust_acc", "val_robust_acc")
    names = [f"{column}_{part}" for column in curves for part in ("mean", "std")]
    records = []
    for label in group.labels:
        runs = [histories.get(run_id) for run_id in group.runs(label)]
        tables = [run.set_index("epoch") for run in runs if run is not None and not run.empty]
        if len(tables) < len(runs):
            continue
        shared = sorted(set.intersection(*(set(table.index) for table in tables)))
        for epoch in shared:
            spreads = [
                over_seeds([table[column].get(epoch, math.nan) for table in tables])
                if all(column in table for table in tables)
                else Spread(math.nan, math.nan, 0)
                for column in curves
            ]
            values = [value for spread in spreads for value in (spread.mean, spread.std)]
            records.append((label, epoch, *values))
    return pd.DataFrame(records, columns=["label", "epoch", *names])


def _class_block(rows: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Find the one evaluation among `rows` that the metric row was computed from."""
    for column in MATCH_COLUMNS:
        if column in rows and not (column == "eps" and row["attack"] == "clean"):
            rows = rows[
                (rows[column] == row[column]) | (rows[column].isna() & pd.isna(row[column]))
            ]
    turn = rows.groupby("class_index").cumcount()
    for _, block in rows.groupby(turn):
        same_images = int(block["n_test"].sum()) == int(row["n"])
        same_mean = np.isclose(block["accuracy"].mean(), row["balanced_accuracy"], atol=1e-6)
        if same_images and same_mean:
            return block
    return rows.iloc[:0]
