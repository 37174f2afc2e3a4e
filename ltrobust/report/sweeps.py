"""Balanced accuracy while one setting changes and all others stay: radius, PGD steps, imbalance.

Means are over all seeds of a row or not at all; nothing is averaged over the setting that changes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd

from ltrobust.report.estimate import Estimate, over_seeds
from ltrobust.report.groups import Group, attack_order, compact_json, with_slugs
from ltrobust.report.ranking import strongest_attack
from ltrobust.report.ratios import Family
from ltrobust.report.setting import INTERVALS

_STEPPED = re.compile(r"(pgd|cw|mim|lsa|dlr|tpgd)(\d+)(.*)")


@dataclass(frozen=True)
class Point:
    """Balanced accuracy of one label at one value of what changes."""

    label: str
    x: float
    score: Estimate
    attack: str


@dataclass(frozen=True)
class Sweep:
    """Points along one setting.

    Attributes:
        group: all rows that it spans; only for names and marks, never to average.
        points: attack after attack, weakest first, then label, then x.
        home: slug of the setting beside which it is shown.
    """

    group: Group
    points: tuple[Point, ...]
    home: str

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks, weakest first."""
        return list(dict.fromkeys(point.attack for point in self.points))


Rows = Sequence[tuple[float, Mapping[str, Any]]]
"""Metric rows, each with its value of what changes."""


def eps_sweeps(groups: Sequence[Group]) -> list[Sweep]:
    """Balanced accuracy by radius: rows that agree in all but eps and the length of a step.

    Args:
        groups: all groups of a report.

    Returns:
        One sweep for each setting that has an attack at two radii or more. `x` is eps in image
        units, 0 without an attack; `attack` is the name without radius, and there may be several.
        A missing seed makes a mean NaN.
    """
    blocks: defaultdict[tuple[Any, ...], list[Group]] = defaultdict(list)
    for group in groups:
        shared = (str(value) for name, value in group.key.items() if name != "eps")
        blocks[tuple(shared)].append(group)
    kept = []
    for block in blocks.values():
        together = _over_radii(block) if len(block) > 1 else block[0]
        points = _eps_points(together) if len(block) > 1 else ()
        if points:
            home = max(block, key=lambda one: (one.main, len(one.labels)))
            kept.append(Sweep(together, points, home.slug))
    named = with_slugs([sweep.group for sweep in kept])
    return [replace(sweep, group=one) for one, sweep in zip(named, kept, strict=True)]


def steps_sweep(group: Group) -> Sweep:
    """Balanced accuracy by number of steps: attacks that agree in all but these.

    Returns:
        `x` is the number of steps, `attack` such as `pgdN`, and there may be several. No points
        without an attack of two numbers of steps.
    """
    found: dict[tuple[str, str], list[tuple[float, Mapping[str, Any]]]] = {}
    for row in _rows(group):
        match = _STEPPED.fullmatch(row["attack"])
        if match:
            name = f"{match[1]}N{match[3]}"
            kind = _kind(row["signature"], ("steps",))
            found.setdefault((name, kind), []).append((float(match[2]), row))
    return Sweep(group, _curves(group, found, ()), group.slug)


def ratio_sweep(family: Family) -> Sweep:
    """Balanced accuracy by imbalance ratio: clean, and under the strongest attack.

    The strongest is chosen among the attacks that stand at two ratios or more. Of several splits at
    one ratio, that with most training images is taken.

    Returns:
        `x` is the imbalance ratio, `attack` `clean` or the attack's name.
    """
    by_images = sorted(family.members, key=lambda one: one.rows["n_train"].max())
    members = {float(one.key["imbalance_ratio"]): one for one in by_images}
    seen = [attack for member in members.values() for attack in member.attacks]
    several = sorted((a for a in set(seen) if seen.count(a) > 1), key=attack_order)
    shown = [name for name in ("clean", strongest_attack(several)) if name in several]
    points = [
        Point(label, ratio, member.estimate(label, attack, "balanced_accuracy"), attack)
        for ratio, member in members.items()
        for label in member.labels
        for attack in shown
        if attack in member.attacks
    ]
    points.sort(key=lambda point: (attack_order(point.attack), point.label, point.x))
    home = max(family.members, key=lambda one: (one.main, len(one.labels)))
    return Sweep(family.together, tuple(points), home.slug)


def _rows(group: Group) -> Iterable[Mapping[str, Any]]:
    return (row for rows in group.cells.values() for row in rows)


def _over_radii(block: Sequence[Group]) -> Group:
    """All rows of groups that differ in eps, each once, with one label a run."""
    rows = pd.concat([group.rows for group in block])
    rows = rows.assign(eps=rows["eps"].astype(float).round(9))
    rows = rows.drop_duplicates(["run_id", "attack", "eps", "signature"])
    # where groups name a run in several ways, that which tells most
    labels = rows.groupby("run_id")["label"].agg(lambda names: max(names, key=len))
    rows = rows.assign(label=rows["run_id"].map(labels)).reset_index(drop=True)
    first = block[0]
    return Group({**first.key, "eps": 0.0}, rows, differing=first.differing)


def _eps_points(group: Group) -> tuple[Point, ...]:
    found: dict[tuple[str, str], list[tuple[float, Mapping[str, Any]]]] = {}
    clean: dict[str, Mapping[str, Any]] = {}
    for row in _rows(group):
        if row["attack"] == "clean":
            clean.setdefault(row["run_id"], row)
            continue
        kind = _kind(row["signature"], ("eps", "step_size"))
        found.setdefault((row["attack"], kind), []).append((float(row["eps"]), row))
    return _curves(group, found, [(0.0, row) for row in clean.values()])


@cache
def _kind(signature: str, free: tuple[str, ...]) -> str:
    """What of an attack's settings must agree: all but those named."""
    settings, library = json.loads(signature)
    if isinstance(settings, dict):
        settings = {name: value for name, value in settings.items() if name not in free}
    return compact_json([settings, library])


def _curves(group: Group, found: Mapping[tuple[str, str], Rows], start: Rows) -> tuple[Point, ...]:
    """Average the points of each attack that has at least two, weakest attack first.

    Args:
        group: says which runs are averaged.
        found: rows by the attack's name and what of its settings agrees.
        start: rows that stand before each attack's own.
    """
    points: list[Point] = []
    for name in sorted({name for name, _ in found}, key=attack_order):
        # of several settings of one attack, that with most points
        kinds = sorted((kind, rows) for (own, kind), rows in found.items() if own == name)
        _, rows = max(kinds, key=lambda one: len({x for x, _ in one[1]}))
        own = _averaged(group, rows, name)
        known = [point for point in own if point.score.known]
        labels = {point.label for point in known}
        if len({point.x for point in known}) > 1:
            own += _averaged(group, start, name)
            own.sort(key=lambda point: (point.label, point.x))
            points += [point for point in own if point.label in labels]
    return tuple(points)


def _averaged(group: Group, rows: Rows, attack: str) -> list[Point]:
    """One point for each label and value among the rows."""
    cells = {(row["run_id"], x): row for x, row in rows}
    columns = INTERVALS["balanced_accuracy"]
    points = []
    for label in sorted({str(row["label"]) for _, row in rows}):
        for x in sorted({x for x, _ in rows}):
            own = [cells.get((run, x), {}) for run in group.runs(label)]
            values = [float(row.get("balanced_accuracy", "nan")) for row in own]
            low, high = (float(own[0].get(name, "nan")) for name in columns)
            points.append(Point(label, x, over_seeds(values, low, high), attack))
    return points
