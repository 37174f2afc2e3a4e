"""Balanced accuracy by imbalance ratio: the one table that spans groups of comparable results.

Groups come together when they agree in everything but the imbalance ratio and what follows from it.
Nothing is averaged over ratios.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import (
    Spread,
    class_attacks,
    ranked_labels,
    records_by_cell,
    scores,
)
from ltrobust.report.captions import LONG_TAILED, setting, spread_note, test_images
from ltrobust.report.groups import Group, attack_order, with_slugs
from ltrobust.report.marks import reliability_note, sign_of
from ltrobust.report.markup import Cell, Table, by_section


@dataclass(frozen=True)
class Family:
    """Groups that differ in nothing but the imbalance ratio.

    Attributes:
        slug: a file name part, different for each family of one report.
        ending: what stands behind the names of its files; "" for the main family.
        members: by rising imbalance ratio; at least two ratios. Two members share a ratio where
            their training images were chosen in different ways.
    """

    slug: str
    ending: str
    members: tuple[Group, ...]

    @property
    def together(self) -> Group:
        """All rows under one key; only for names and notes, never to average."""
        return _together(self.members)

    @property
    def columns(self) -> list[str]:
        """What each member is called: its ratio, with its training images where ratios repeat."""
        names = [f"IR {group.key['imbalance_ratio']:g}" for group in self.members]
        for facts in (_images, lambda group: f"split {group.key['split_sha256'][:8]}"):
            seen = Counter(names)
            names = [
                f"{name} ({facts(group)})" if seen[name] > 1 else name
                for name, group in zip(names, self.members, strict=True)
            ]
        return names


def ratio_families(groups: Sequence[Group]) -> list[Family]:
    """Bring groups together that agree in everything but the imbalance ratio.

    What follows from the ratio may differ too: the split, and the number of test images where the
    test set is long-tailed. Attacks that several groups have must agree in their settings and
    library; where they do not, each combination is a family of its own.

    Returns:
        The families with at least two ratios, in the order of `groups`.
    """
    blocks: defaultdict[tuple[Any, ...], list[Group]] = defaultdict(list)
    for group in groups:
        blocks[_shared(group)].append(group)
    found = [part for block in blocks.values() for part in _by_attack_settings(block)]
    found = [part for part in found if len({g.key["imbalance_ratio"] for g in part}) > 1]
    named = with_slugs([_together(part) for part in found])
    return [
        Family(one.slug, one.ending, tuple(part)) for one, part in zip(named, found, strict=True)
    ]


def ratio_table(family: Family) -> Table:
    """Balanced accuracy of each method, one column an imbalance ratio: clean, PGD, AutoAttack."""
    columns = family.columns
    cells = [records_by_cell(scores(group)) for group in family.members]
    labels = _ranked(family)
    signs: dict[Cell, str] = {}
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    sections = []
    for attack in _attacks(family):
        sections.append(len(rows))
        for label in labels:
            own = [_spread(known.get((label, attack))) for known in cells]
            for group, column in zip(family.members, columns, strict=True):
                if label in group.labels and attack in group.attacks:
                    signs[len(rows), column] = sign_of(group, label, attack)
            told = {"attack": attack, "method": label, **family.together.told(label)}
            rows.append(told | dict(zip(columns, own, strict=True)))
            records += [
                _record(group, attack, label, spread)
                for group, spread in zip(family.members, own, strict=True)
            ]
    return Table(
        "ratios",
        "Balanced accuracy by imbalance ratio",
        _caption(family, rows),
        pd.DataFrame(rows),
        by_section(columns, sections, len(rows)),
        tuple(sections[1:]),
        signs,
        data=pd.DataFrame(records),
    )


def _shared(group: Group) -> tuple[Any, ...]:
    """What members of a family have in common, attacks left aside."""
    own = {"imbalance_ratio", "split_sha256"}
    if group.key["test_protocol"] == LONG_TAILED:
        own |= {"n", "test_sha256"}
    return tuple(value for name, value in group.key.items() if name not in own)


def _by_attack_settings(block: Sequence[Group]) -> list[list[Group]]:
    """Split groups by the settings of those attacks that have several."""
    known: defaultdict[str, set[str]] = defaultdict(set)
    for group in block:
        for attack, signature in _settings(group).items():
            known[attack].add(signature)
    contested = sorted(attack for attack, kinds in known.items() if len(kinds) > 1)
    parts: defaultdict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in block:
        settings = _settings(group)
        parts[tuple(settings.get(attack, "") for attack in contested)].append(group)
    return [sorted(part, key=lambda g: float(g.key["imbalance_ratio"])) for part in parts.values()]


def _settings(group: Group) -> dict[str, str]:
    attacked = group.rows[group.rows["attack"] != "clean"]
    return dict(zip(attacked["attack"], attacked["signature"], strict=True))


def _together(members: Sequence[Group]) -> Group:
    """All rows under one key; only for names, notes and slugs, never to average."""
    key = {**members[0].key, "imbalance_ratio": math.nan, "split_sha256": ""}
    if key["test_protocol"] == LONG_TAILED:
        key |= {"n": 0, "test_sha256": ""}
    return replace(members[0], key=key, rows=pd.concat([group.rows for group in members]))


def _attacks(family: Family) -> list[str]:
    wanted = {attack for group in family.members for attack in class_attacks(group.attacks)}
    return sorted(wanted, key=attack_order)


def _ranked(family: Family) -> list[str]:
    """Labels in their order at the largest ratio, then those that it lacks."""
    orders = [ranked_labels(scores(group)) for group in reversed(family.members)]
    return list(dict.fromkeys(label for order in orders for label in order))


def _spread(cell: dict[str, Any] | None) -> Spread:
    if cell is None:
        return Spread(math.nan, math.nan, 0)
    return Spread(
        cell["balanced_accuracy_mean"], cell["balanced_accuracy_std"], int(cell["n_seeds"])
    )


def _record(group: Group, attack: str, label: str, spread: Spread) -> dict[str, Any]:
    return {
        "setting": group.slug,
        "attack": attack,
        "method": label,
        "imbalance_ratio": group.key["imbalance_ratio"],
        "n_train": _n_train(group),
        "split_sha256": group.key["split_sha256"],
        "n": group.key["n"],
        "n_seeds": spread.n,
        "balanced_accuracy_mean": spread.mean,
        "balanced_accuracy_std": spread.std,
    }


def _caption(family: Family, rows: Sequence[dict[str, Any]]) -> str:
    members = family.members
    ratios = ", ".join(f"{group.key['imbalance_ratio']:g} ({_images(group)})" for group in members)
    test_set = "; ".join(dict.fromkeys(test_images(group) for group in members))
    kind = str(members[0].key["imbalance_type"])
    gaps = any(isinstance(c, Spread) and math.isnan(c.mean) for row in rows for c in row.values())
    missing = " - marks a score that not every seed has." if gaps else ""
    return (
        f"{setting(members, f'{kind} imbalance ratios {ratios}'.strip(), test_set)} Mean over "
        f"classes. Methods in their order at ratio {members[-1].key['imbalance_ratio']:g}. "
        "Percent; "
        f"best of a column bold, second underlined.{spread_note(members)}{missing}"
        f"{reliability_note(family.together, _attacks(family))}"
    )


def _images(group: Group) -> str:
    count = _n_train(group)
    return "training images unknown" if count is None else f"{count:,} training images"


def _n_train(group: Group) -> int | None:
    counts = set(group.rows["n_train"].dropna())
    return int(counts.pop()) if len(counts) == 1 else None
