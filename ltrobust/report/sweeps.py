"""Balanced accuracy while one setting changes and all others stay: radius, PGD steps, imbalance.

Means are over all seeds of a row or not at all; nothing is averaged over the setting that changes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from ltrobust.report.estimate import Estimate, over_seeds
from ltrobust.report.groups import INTERVALS, Group, attack_order, with_slugs
from ltrobust.report.ranking import strongest_attack
from ltrobust.report.ratios import Family
from ltrobust.report.rows import Row, alike, compact_json

_STEPPED = re.compile(r"(pgd|cw|mim|lsa|dlr|tpgd)(\d+)(.*)")

Lines = dict[str, list[tuple[float, Estimate]]]
"""Label to balanced accuracies by rising value of what changes."""
Kinds = dict[str, dict[str, list[tuple[float, Row]]]]
"""Attack and what of its settings agrees to metric rows, each with its value of what changes."""


@dataclass(frozen=True)
class Sweep:
    """Balanced accuracies along one setting.

    Attributes:
        group: all rows that it spans; only for names and marks, never to average.
        lines: attack to its lines, weakest attack first, labels in alphabetical order.
        home: slug of the setting beside which it is shown.
    """

    group: Group
    lines: Mapping[str, Lines]
    home: str


def eps_sweeps(groups: Sequence[Group]) -> list[Sweep]:
    """Balanced accuracy by radius: rows that agree in all but eps and the length of a step.

    Args:
        groups: all groups of a report.

    Returns:
        One sweep for each setting that has an attack at two radii or more, by eps in image units,
        0 without an attack; attacks are called without their radius, and there may be several.
        A missing seed makes a mean NaN.
    """
    blocks: defaultdict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        shared = (str(value) for name, value in group.key.items() if name != "eps")
        blocks[tuple(shared)].append(group)
    kept = []
    for block in (own for own in blocks.values() if len(own) > 1):
        together = _over_radii(block)
        clean: dict[str, Row] = {}
        found: Kinds = {}
        for row in together.rows:
            if row["attack"] == "clean":
                clean.setdefault(row["run_id"], row)
            else:
                kind = _kind(row["signature"], ("eps", "step_size"))
                own = found.setdefault(row["attack"], {}).setdefault(kind, [])
                own.append((float(row["eps"]), row))
        lines = _lines(together, found, [(0.0, row) for row in clean.values()])
        if lines:
            kept.append(Sweep(together, lines, _home(block)))
    named = with_slugs([sweep.group for sweep in kept])
    return [replace(sweep, group=one) for one, sweep in zip(named, kept, strict=True)]


def steps_sweep(group: Group) -> Sweep:
    """Balanced accuracy by number of steps: attacks that agree in all but these.

    Returns:
        Attacks are called such as `pgdN`, and there may be several. No lines without an attack of
        two numbers of steps.
    """
    found: Kinds = {}
    for row in group.rows:
        match = _STEPPED.fullmatch(row["attack"])
        if match:
            kinds = found.setdefault(f"{match[1]}N{match[3]}", {})
            own = kinds.setdefault(_kind(row["signature"], ("steps",)), [])
            own.append((float(match[2]), row))
    return Sweep(group, _lines(group, found), group.slug)


def ratio_sweep(family: Family) -> Sweep:
    """Balanced accuracy by imbalance ratio: clean, and under the strongest attack.

    The strongest is chosen among the attacks that stand at two ratios or more. Of several splits at
    one ratio, that with most training images is taken.
    """
    by_images = sorted(family.members, key=lambda one: max(row["n_train"] for row in one.rows))
    members = {float(one.key["imbalance_ratio"]): one for one in by_images}
    seen = [attack for member in members.values() for attack in member.attacks]
    several = sorted((a for a in set(seen) if seen.count(a) > 1), key=attack_order)
    lines: dict[str, Lines] = {
        name: {} for name in ("clean", strongest_attack(several)) if name in several
    }
    for attack, own in lines.items():
        for ratio, member in sorted(members.items()):
            for label in member.labels if attack in member.attacks else ():
                score = member.estimate(label, attack, "balanced_accuracy")
                own.setdefault(label, []).append((ratio, score))
    return Sweep(family.together, lines, _home(family.members))


def _home(groups: Sequence[Group]) -> str:
    return max(groups, key=lambda one: (one.main, len(one.labels))).slug


def _over_radii(block: Sequence[Group]) -> Group:
    """All rows of groups that differ in eps, each once, with one label a run."""
    rounded = ({**row, "eps": round(row["eps"], 9)} for group in block for row in group.rows)
    known = alike(rounded, "run_id", "attack", "eps", "signature").values()
    rows = [same[0] for same in known]
    labels: dict[str, str] = {}
    for row in rows:  # where groups name a run in several ways, that which tells most
        labels[row["run_id"]] = max(labels.get(row["run_id"], ""), row["label"], key=len)
    rows = [{**row, "label": labels[row["run_id"]]} for row in rows]
    return Group({**block[0].key, "eps": 0.0}, rows, differing=block[0].differing)


@cache
def _kind(signature: str, free: tuple[str, ...]) -> str:
    """What of an attack's settings must agree: all but those named."""
    settings, library = json.loads(signature)
    if isinstance(settings, dict):
        settings = {name: value for name, value in settings.items() if name not in free}
    return compact_json([settings, library])


def _lines(group: Group, found: Kinds, start: Sequence[tuple[float, Row]] = ()) -> dict[str, Lines]:
    """Average the rows of each attack that has two values or more.

    Args:
        group: says which runs are averaged.
        found: the rows.
        start: rows that stand before each attack's own.
    """
    first = _averaged(group, start)
    lines: dict[str, Lines] = {}
    for attack in sorted(found, key=attack_order):
        # of several settings of one attack, that with most points
        kinds = [rows for _, rows in sorted(found[attack].items(), key=lambda one: one[0])]
        own = _averaged(group, max(kinds, key=lambda rows: len({x for x, _ in rows})))
        known = {label: {x for x, score in line if score.known} for label, line in own.items()}
        if len(set().union(*known.values())) > 1:
            lines[attack] = {
                label: first.get(label, []) + line for label, line in own.items() if known[label]
            }
    return lines


def _averaged(group: Group, rows: Sequence[tuple[float, Row]]) -> Lines:
    """One point for each label and value among the rows."""
    cells = {(row["run_id"], x): row for x, row in rows}
    columns = INTERVALS["balanced_accuracy"]
    lines: Lines = {}
    for label in sorted({str(row["label"]) for _, row in rows}):
        for x in sorted({x for x, _ in rows}):
            own = [cells.get((run, x), {}) for run in group.runs(label)]
            values = [float(row.get("balanced_accuracy", "nan")) for row in own]
            low, high = (float(own[0].get(name, "nan")) for name in columns)
            lines.setdefault(label, []).append((x, over_seeds(values, low, high)))
    return lines
