"""What each method costs: time of training and of every attack, memory, parameters.

Times can be compared where device, threads, precision and code agree: CPU time where it is known of
all of a group, else wall time. Precision belongs to the setting of a group; what differs in the
others stands in rows of their own: a row holds the runs of one method that have anything
measured under the same conditions, and a value that one of them lacks is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ltrobust.report.estimate import Estimate, over_seeds
from ltrobust.report.groups import Group

_COMMIT = 8
"""Characters of a commit that are shown."""
WALL = "wall time"
CPU = "CPU time"
BUSY = " Wall times of a busy machine say little about a method."
_COLUMNS = {WALL: ("train_seconds", "seconds"), CPU: ("train_cpu_seconds", "cpu_seconds")}
"""Where the time of the training and that of the attack stand in a row."""
_MEMORY = "peak_memory_bytes"
_OF_TRAINING = ("train_seconds", _MEMORY)
Numbers = dict[tuple[str, str], float]
"""What was measured under the same conditions: run and column, or attack, to seconds or bytes."""


@dataclass(frozen=True)
class Conditions:
    """What must agree for two times to be comparable; "" where it is unknown.

    Attributes:
        device: in words.
        threads: number of CPU threads.
        commit: of the code, shortened; its version where it was no checkout.
        clock: `WALL` or `CPU`, the same for all of a group.
    """

    device: str
    threads: str
    commit: str
    clock: str

    def __str__(self) -> str:
        count = f"{self.threads} thread{'' if self.threads == '1' else 's'}" if self.threads else ""
        commit = self.commit if " " in self.commit or not self.commit else f"commit {self.commit}"
        return ", ".join(part for part in (self.device, count, commit, self.clock) if part)


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
    clock = CPU if _busy_is_known(group) else WALL
    trained_in, attacked_in = _COLUMNS[clock]
    found = []
    for label in ranked:
        rows = [row for attack in group.attacks for row in group.cells.get((label, attack), ())]
        sizes = {row["parameters"] for row in rows if not math.isnan(row["parameters"])}
        size = sizes.pop() if len(sizes) == 1 else math.nan
        measured: dict[Conditions, Numbers] = {}
        for row in rows:
            trained, attacked = _conditions(row, clock)
            run, trains = row["run_id"], measured.setdefault(trained, {})
            trains |= {(run, "train_seconds"): row[trained_in], (run, _MEMORY): row[_MEMORY]}
            measured.setdefault(attacked, {})[run, row["attack"]] = row[attacked_in]
        for conditions in _in_order(measured):
            numbers = measured[conditions]
            runs = [run for run in group.runs(label) if any(run == own for own, _ in numbers)]
            train_seconds, memory, *times = (
                over_seeds([numbers.get((run, name), math.nan) for run in runs])
                for name in (*_OF_TRAINING, *group.attacks)
            )
            by_attack = dict(zip(group.attacks, times, strict=True))
            found.append(
                Cost(label, conditions, tuple(runs), train_seconds, memory, size, by_attack)
            )
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


def _in_order(measured: Mapping[Conditions, Numbers]) -> list[Conditions]:
    """Where and how the runs of one label were trained, then how else they were attacked.

    Conditions under which nothing was measured, such as those of a training that was not timed, are
    none, unless they are all there is.
    """
    known = {
        conditions: [name for (_, name), value in numbers.items() if not math.isnan(value)]
        for conditions, numbers in measured.items()
    }
    first, *_ = known
    return sorted(
        (conditions for conditions, names in known.items() if names),
        key=lambda one: (not {*_OF_TRAINING} & {*known[one]}, str(one)),
    ) or [first]


def _busy_is_known(group: Group) -> bool:
    """Whether all that was timed was timed in CPU time as well."""
    return all(
        math.isnan(row[wall]) or not math.isnan(row[busy])
        for row in group.rows
        for wall, busy in zip(_COLUMNS[WALL], _COLUMNS[CPU], strict=True)
    )


def _conditions(row: Mapping[str, Any], clock: str) -> tuple[Conditions, Conditions]:
    """Of the training, and of the attack."""
    device, commit, version = (_text(row[name]) for name in ("device", "git_commit", "ltrobust"))
    code = commit or (version and f"ltrobust {version}")
    trained = Conditions(device, _text(row["threads"]), _shortened(code), clock)
    if not (device := _text(row["attack_device"])):
        return trained, trained
    threads, code = _text(row["attack_threads"]), _text(row["attack_code"])
    return trained, Conditions(device, threads, _shortened(code), clock)


def _shortened(code: str) -> str:
    """A commit in few characters, whether it was changed kept; a version as it is."""
    commit, plus, dirty = code.partition("+")
    commit = commit.strip() if " " in commit else commit[:_COMMIT]
    return f"{commit}{plus}{dirty}"


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
