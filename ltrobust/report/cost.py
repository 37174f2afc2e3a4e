"""What each method costs: time of training and of every attack, memory, parameters.

Times can be compared where device, threads, precision and code agree. Precision belongs to the
setting of a group; what differs in the others stands in rows of their own: a row holds the runs of
one method that have anything measured under the same conditions, and a value that one of them lacks
is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltrobust.report.estimate import Estimate, over_seeds
from ltrobust.report.groups import Group

_COMMIT = 8
"""Characters of a commit that are shown."""


@dataclass(frozen=True)
class Conditions:
    """What must agree for two times to be comparable; "" where it is unknown.

    Attributes:
        device: in words.
        threads: number of CPU threads.
        commit: of the code, shortened; its version where it was no checkout.
    """

    device: str
    threads: str
    commit: str

    def __str__(self) -> str:
        count = f"{self.threads} thread{'' if self.threads == '1' else 's'}" if self.threads else ""
        commit = self.commit if " " in self.commit or not self.commit else f"commit {self.commit}"
        return ", ".join(part for part in (self.device, count, commit) if part)


@dataclass(frozen=True)
class Cost:
    """What one method costs under the same conditions.

    Attributes:
        label: row label of the group.
        conditions: where and how it was measured.
        runs: run ids, in the order of their seeds.
        train_seconds: of the training.
        memory_bytes: most memory by the end of the training.
        parameters: of the trained network; NaN when unknown.
        attack_seconds: attack to time of its evaluation.
    """

    label: str
    conditions: Conditions
    runs: tuple[str, ...]
    train_seconds: Estimate
    memory_bytes: Estimate
    parameters: float
    attack_seconds: Mapping[str, Estimate]


def costs(group: Group, ranked: Sequence[str]) -> list[Cost]:
    """Average what was measured over seeds, never over conditions, in the order of `ranked`.

    Training times, memory and attack times that one of a row's runs lacks are NaN: it was measured
    under other conditions, not trained here, or not attacked.
    """
    found = []
    for label in ranked:
        rows = [row for attack in group.attacks for row in group.cells.get((label, attack), ())]
        trained = [_trained(row) for row in rows]
        attacked = [_attacked(row, same) for row, same in zip(rows, trained, strict=True)]
        own = list(zip(rows, trained, attacked, strict=True))
        sizes = {row["parameters"] for row in rows if _number(row, "parameters") >= 0}
        size = float(sizes.pop()) if len(sizes) == 1 else math.nan
        for conditions in _all_conditions(own):
            found.append(_cost(label, conditions, own, size, group.runs(label), group.attacks))
    return found


def drawn_costs(costs: Sequence[Cost], seeds: Mapping[str, int]) -> tuple[list[Cost], list[str]]:
    """Costs that may stand on one axis, and the labels of those measured otherwise.

    Args:
        costs: of labels that have the number of seeds in `seeds`; labels of which a seed lacks its
            training time, or whose seeds were trained under several conditions, are left out.
        seeds: label to its number of seeds.

    Returns:
        Those measured as most are, of equals as the first.
    """
    whole = [
        cost
        for cost in costs
        if cost.label in seeds and len(cost.runs) >= seeds[cost.label] and cost.train_seconds.known
    ]
    if not whole:
        return [], []
    ((most, _),) = Counter(str(cost.conditions) for cost in whole).most_common(1)
    drawn = [cost for cost in whole if str(cost.conditions) == most]
    return drawn, [cost.label for cost in whole if str(cost.conditions) != most]


Judged = Sequence[tuple[Mapping[str, Any], Conditions, Conditions]]
"""Metric rows with the conditions of training and attack."""


def _cost(
    label: str,
    conditions: Conditions,
    own: Judged,
    size: float,
    runs: Sequence[str],
    attacks: Sequence[str],
) -> Cost:
    trained: dict[str, Mapping[str, Any]] = {}
    times: dict[tuple[str, str], float] = {}
    for row, training, attack in own:
        if training == conditions:
            trained.setdefault(row["run_id"], row)
        if attack == conditions:
            times[row["run_id"], row["attack"]] = _number(row, "seconds")
    attacked = {run for run, _ in times}
    here = [run for run in runs if run in trained or run in attacked]

    def measured(column: str) -> Estimate:
        return over_seeds([_number(trained.get(run, {}), column) for run in here])

    return Cost(
        label,
        conditions,
        tuple(here),
        measured("train_seconds"),
        measured("peak_memory_bytes"),
        size,
        {
            attack: over_seeds([times.get((run, attack), math.nan) for run in here])
            for attack in attacks
        },
    )


def _all_conditions(own: Judged) -> list[Conditions]:
    """Where and how the runs of one label were trained, then how else they were attacked.

    Conditions under which nothing was measured, such as those of a training that was not timed, are
    none, unless they are all there is.
    """
    trained = {
        training
        for row, training, _ in own
        if any(_number(row, name) >= 0 for name in ("train_seconds", "peak_memory_bytes"))
    }
    attacked = {attack for row, _, attack in own if _number(row, "seconds") >= 0}
    known = [*sorted(trained, key=str), *sorted(attacked, key=str)]
    return list(dict.fromkeys(known)) or [own[0][1]]


def _trained(row: Mapping[str, Any]) -> Conditions:
    version = _text(row, "ltrobust")
    code = _text(row, "git_commit") or (version and f"ltrobust {version}")
    return _conditions(_text(row, "device"), _text(row, "threads"), code)


def _attacked(row: Mapping[str, Any], same: Conditions) -> Conditions:
    device = _text(row, "attack_device")
    if not device:
        return same
    return _conditions(device, _text(row, "attack_threads"), _text(row, "attack_code"))


def _conditions(device: str, threads: str, code: str) -> Conditions:
    commit, plus, dirty = code.partition("+")
    commit = commit.strip() if " " in commit else commit[:_COMMIT]
    return Conditions(device, threads.removesuffix(".0"), f"{commit}{plus}{dirty}")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    missing = value is None or value != value or str(value) == "<NA>"
    return "" if missing else str(value)


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return math.nan if value is None or _text(row, name) == "" else float(value)
