"""Balanced accuracy while one setting changes and all others stay: radius, PGD steps, imbalance.

Tidy frames that `curves.py` draws. Means are over all seeds of a row or not at all, as in
`aggregate.py`; nothing is averaged over the setting that changes.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import over_seeds, scores, strongest_attack
from ltrobust.report.groups import Group, attack_order, compact_json, with_slugs
from ltrobust.report.ratios import Family

COLUMNS = ["label", "x", "mean", "std", "n_seeds", "attack"]
_STEPPED = re.compile(r"(pgd|cw|mim|lsa|dlr|tpgd)(\d+)(.*)")


def eps_sweeps(groups: Sequence[Group]) -> dict[str, tuple[Group, pd.DataFrame]]:
    """Balanced accuracy by radius: rows that agree in all but eps and the length of a step.

    Args:
        groups: all groups of a report.

    Returns:
        A file name part to all rows that the sweep spans, as one group (only for names and marks,
        never to average), and a frame with the columns `COLUMNS`, for each setting that has an
        attack at two radii or more. `x` is eps in image units, 0 without an attack; `attack` is
        the name without radius, and there may be several. A missing seed makes a mean NaN.
    """
    blocks: defaultdict[tuple[Any, ...], list[Group]] = defaultdict(list)
    for group in groups:
        shared = (str(value) for name, value in group.key.items() if name != "eps")
        blocks[tuple(shared)].append(group)
    together = [_over_radii(block) for block in blocks.values()]
    found = [(group, _eps_curves(group)) for group in together]
    kept = [(group, frame) for group, frame in found if len(frame)]
    named = with_slugs([group for group, _ in kept])
    return {one.slug: (one, frame) for one, (_, frame) in zip(named, kept, strict=True)}


def steps_sweep(group: Group) -> pd.DataFrame:
    """Balanced accuracy by number of steps: attacks that agree in all but these.

    Returns:
        Columns `COLUMNS`: `x` is the number of steps, `attack` such as `pgdN`, and there may be
        several. Empty without an attack of two numbers of steps.
    """
    names = [_STEPPED.fullmatch(name) for name in group.rows["attack"]]
    rows = group.rows.assign(
        x=[float(match[2]) if match else math.nan for match in names],
        sweep=[f"{match[1]}N{match[3]}" if match else "" for match in names],
        kind=_kinds(group.rows, "steps"),
    )
    return _curves(group, rows[rows["sweep"] != ""], rows.iloc[:0])


def ratio_sweep(family: Family) -> pd.DataFrame:
    """Balanced accuracy by imbalance ratio: clean, and under the strongest attack.

    The strongest is chosen among the attacks that stand at two ratios or more. Of several splits at
    one ratio, that with most training images is taken.

    Returns:
        Columns `COLUMNS`: `x` is the imbalance ratio, `attack` `clean` or the attack's name.
    """
    members: dict[float, Group] = {}
    for group in sorted(family.members, key=lambda one: one.rows["n_train"].max()):
        members[float(group.key["imbalance_ratio"])] = group
    seen = [attack for group in members.values() for attack in group.attacks]
    several = sorted((a for a in set(seen) if seen.count(a) > 1), key=attack_order)
    shown = ["clean", strongest_attack(several)]
    records = []
    for ratio, group in sorted(members.items()):
        for row in scores(group).to_dict("records"):
            score = row["balanced_accuracy_mean"], row["balanced_accuracy_std"]
            if row["attack"] in shown and row["attack"] in several:
                records.append((row["label"], ratio, *score, row["n_seeds"], row["attack"]))
    records.sort(key=lambda record: (attack_order(record[-1]), record[:2]))
    return pd.DataFrame(records, columns=COLUMNS)


def _over_radii(block: Sequence[Group]) -> Group:
    """All rows of groups that differ in eps, each once, with one label a run."""
    rows = pd.concat([group.rows for group in block])
    rows = rows.assign(eps=rows["eps"].astype(float).round(9))
    rows = rows.drop_duplicates(["run_id", "attack", "eps", "signature"])
    # where groups name a run in several ways, that which tells most
    labels = rows.groupby("run_id")["label"].agg(lambda names: max(names, key=len))
    rows = rows.assign(label=rows["run_id"].map(labels)).reset_index(drop=True)
    return replace(block[0], key={**block[0].key, "eps": 0.0}, rows=rows)


def _eps_curves(group: Group) -> pd.DataFrame:
    rows = group.rows
    rows = rows.assign(x=rows["eps"], sweep=rows["attack"], kind=_kinds(rows, "eps", "step_size"))
    clean = rows[rows["attack"] == "clean"].drop_duplicates("run_id").assign(x=0.0)
    return _curves(group, rows[rows["attack"] != "clean"], clean)


def _kinds(rows: pd.DataFrame, *free: str) -> list[str]:
    """What of each row's attack settings must agree: all but those named."""
    kinds = []
    for signature in rows["signature"]:
        settings, library = json.loads(signature)
        if isinstance(settings, dict):
            settings = {name: value for name, value in settings.items() if name not in free}
        kinds.append(compact_json([settings, library]))
    return kinds


def _curves(group: Group, rows: pd.DataFrame, start: pd.DataFrame) -> pd.DataFrame:
    """Average the points of each attack that has at least two, weakest attack first.

    Args:
        group: says which runs are averaged.
        rows: metric rows with `x`, `sweep` (the attack's name in the frame) and `kind`.
        start: rows that stand before each attack's own.
    """
    several = rows.groupby(["sweep", "kind"])["x"].nunique()
    several = several[several > 1]
    records: list[tuple[Any, ...]] = []
    for name in sorted(set(several.index.get_level_values(0)), key=attack_order):
        # of several settings of one attack, that with most points
        kind = several[name].idxmax()
        points = _averaged(group, rows[(rows["sweep"] == name) & (rows["kind"] == kind)])
        known = [point for point in points if not math.isnan(point[2])]
        labels = {point[0] for point in known}
        if len({point[1] for point in known}) > 1:
            first = _averaged(group, start[start["label"].isin(labels)])
            joined = sorted((*first, *points), key=lambda point: point[:2])
            records += [(*point, name) for point in joined if point[0] in labels]
    return pd.DataFrame(records, columns=COLUMNS)


def _averaged(group: Group, rows: pd.DataFrame) -> list[tuple[str, float, float, float, int]]:
    """Label, x, mean, std and number of seeds of every point."""
    cells = {
        (run, x): score
        for run, x, score in rows[["run_id", "x", "balanced_accuracy"]].itertuples(index=False)
    }
    points = []
    for label in sorted(set(rows["label"])):
        runs = group.runs(label)
        for x in sorted(set(rows["x"])):
            spread = over_seeds([cells.get((run, x), math.nan) for run in runs])
            points.append((label, x, spread.mean, spread.std, spread.n))
    return points
