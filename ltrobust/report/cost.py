"""What each method costs: time of training and of every attack, memory, parameters.

Times can be compared where device, threads, precision and code agree. Precision belongs to the
setting of a group; what differs in the others stands in rows of their own: a row holds the runs of
one method that have anything measured under the same conditions, and a value that one of them lacks
is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import Spread, over_seeds, ranked_labels, scores
from ltrobust.report.captions import describe, spread_note
from ltrobust.report.groups import Group
from ltrobust.report.markup import Quantity, Table

_UNITS = ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))
"""From so many seconds on, seconds in the unit, its name."""
_GIGABYTE = 1e9
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
    train_seconds: Spread
    memory_bytes: Spread
    parameters: float
    attack_seconds: dict[str, Spread]


def costs(group: Group) -> list[Cost]:
    """Average what was measured over seeds, never over conditions, best method first.

    Training times, memory and attack times that one of a row's runs lacks are NaN: it was measured
    under other conditions, not trained here, or not attacked.
    """
    trained = [
        _conditions(device, threads, commit or (version and f"ltrobust {version}"))
        for device, threads, commit, version in _columns(
            group.rows, "device", "threads", "git_commit", "ltrobust"
        )
    ]
    attacked = [
        _conditions(device, threads, code) if device else same
        for same, (device, threads, code) in zip(
            trained,
            _columns(group.rows, "attack_device", "attack_threads", "attack_code"),
            strict=True,
        )
    ]
    index = group.rows.index
    rows = group.rows.assign(trained=pd.Series(trained, index), attacked=pd.Series(attacked, index))
    return [
        _cost(label, conditions, own, group.runs(label), group.attacks)
        for label in ranked_labels(scores(group))
        for own in [rows[rows["label"] == label]]
        for conditions in _all_conditions(own)
    ]


def cost_table(group: Group, attacks: Sequence[str] | None = None) -> Table | None:
    """Cost of every method; None where nothing was measured.

    Args:
        group: the results.
        attacks: those whose evaluation is shown; default all.
    """
    found = costs(group)
    attacks = group.attacks if attacks is None else attacks
    known = [
        value.mean
        for cost in found
        for value in (cost.train_seconds, cost.memory_bytes, *cost.attack_seconds.values())
    ]
    if all(map(math.isnan, known)) and all(math.isnan(cost.parameters) for cost in found):
        return None
    conditions = list(dict.fromkeys(cost.conditions for cost in found))
    train, unit = _in_units([cost.train_seconds for cost in found])
    rows: list[dict[str, Any]] = [
        {"method": cost.label, **group.told(cost.label)} for cost in found
    ]
    columns: dict[str, Sequence[Quantity | str]] = {}
    for name in _differing(conditions):
        columns[name] = [getattr(cost.conditions, name) or "unknown" for cost in found]
    columns[f"training ({unit})"] = train
    for attack in attacks:
        times, unit = _in_units([cost.attack_seconds[attack] for cost in found])
        columns[f"{attack} ({unit})"] = times
    columns["memory (GB)"] = [_quantity(cost.memory_bytes, _GIGABYTE) for cost in found]
    columns["parameters"] = [Quantity(cost.parameters, math.nan, 1, digits=0) for cost in found]
    for name, cells in columns.items():
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    caption = f"{describe(group)}{_measured(conditions)}{_gaps(rows)}"
    caption += f"{spread_note([group])}"
    data = _data(group, found)
    return Table("cost", "Cost of training and evaluation", caption, pd.DataFrame(rows), data=data)


def _columns(rows: pd.DataFrame, *names: str) -> Iterator[tuple[str, ...]]:
    """Cells of columns as text, "" where there is none."""
    for values in rows.reindex(columns=list(names)).itertuples(index=False, name=None):
        yield tuple("" if pd.isna(value) else str(value) for value in values)


def _conditions(device: str, threads: str, code: str) -> Conditions:
    commit, plus, dirty = code.partition("+")
    commit = commit.strip() if " " in commit else commit[:_COMMIT]
    return Conditions(device, threads.removesuffix(".0"), f"{commit}{plus}{dirty}")


def _cost(
    label: str, conditions: Conditions, own: pd.DataFrame, runs: Sequence[str], attacks: list[str]
) -> Cost:
    trained = own[own["trained"] == conditions].drop_duplicates("run_id").set_index("run_id")
    attacked = own[own["attacked"] == conditions]
    times = {
        (run, attack): seconds
        for run, attack, seconds in attacked[["run_id", "attack", "seconds"]].itertuples(
            index=False
        )
    }
    here = [run for run in runs if run in trained.index or run in set(attacked["run_id"])]
    sizes = set(own["parameters"].dropna())

    def measured(column: str) -> Spread:
        return over_seeds([trained[column].get(run, math.nan) for run in here])

    return Cost(
        label,
        conditions,
        tuple(here),
        measured("train_seconds"),
        measured("peak_memory_bytes"),
        float(sizes.pop()) if len(sizes) == 1 else math.nan,
        {
            attack: over_seeds([times.get((run, attack), math.nan) for run in here])
            for attack in attacks
        },
    )


def _all_conditions(own: pd.DataFrame) -> list[Conditions]:
    """Where and how the runs of one label were trained, then how else they were attacked.

    Conditions under which nothing was measured, such as those of a training that was not timed, are
    none, unless they are all there is.
    """
    timed = own["train_seconds"].notna() | own["peak_memory_bytes"].notna()
    trained = sorted(set(own.loc[timed, "trained"]), key=str)
    attacked = sorted(set(own.loc[own["seconds"].notna(), "attacked"]), key=str)
    return list(dict.fromkeys([*trained, *attacked])) or [own["trained"].iloc[0]]


def _in_units(times: Sequence[Spread]) -> tuple[list[Quantity], str]:
    """Times in the one unit that fits the longest of them."""
    longest = max((time.mean for time in times if not math.isnan(time.mean)), default=0.0)
    seconds, unit = next((size, name) for start, size, name in _UNITS if longest >= start)
    return [_quantity(time, seconds) for time in times], unit


def _quantity(value: Spread, unit: float) -> Quantity:
    return Quantity(value.mean / unit, value.std / unit, value.n, digits=2)


def _differing(conditions: Sequence[Conditions]) -> list[str]:
    """In which of device, threads and commit the rows of a table differ."""
    names = [field.name for field in fields(Conditions)]
    return [name for name in names if len({getattr(one, name) for one in conditions}) > 1]


def _measured(conditions: Sequence[Conditions]) -> str:
    differing = _differing(conditions)
    shared = str(replace(conditions[0], **dict.fromkeys(differing, "")))
    on = "with" if "device" in differing else "on"
    where = f" Measured {on} {shared}." if shared else ""
    if differing:
        where += (
            f" Each row holds one {' and '.join(differing)}: only rows that agree in these can be "
            "compared, and they are never averaged."
        )
    return (
        f"{where} Wall time of the training, and of each attack on all test images. Peak memory: "
        "of the allocator on CUDA, else of the whole process, earlier runs of it included."
    )


def _gaps(rows: Sequence[dict[str, Any]]) -> str:
    cells = [cell for row in rows for cell in row.values() if isinstance(cell, Quantity)]
    missing = any(math.isnan(cell.mean) for cell in cells)
    return " - marks what is not known of every run of the row." if missing else ""


def _data(group: Group, found: Sequence[Cost]) -> pd.DataFrame:
    records = []
    for cost in found:
        measured = {
            "train_seconds": cost.train_seconds,
            "peak_memory_bytes": cost.memory_bytes,
            **{f"{attack}_seconds": time for attack, time in cost.attack_seconds.items()},
        }
        records.append(
            {
                "setting": group.slug,
                "method": cost.label,
                **group.own(cost.label),
                **asdict(cost.conditions),
                "n_seeds": len(cost.runs),
                "run_ids": ",".join(cost.runs),
                "parameters": cost.parameters,
                **{
                    f"{name}_{part}": value
                    for name, spread in measured.items()
                    for part, value in (("mean", spread.mean), ("std", spread.std))
                },
            }
        )
    frame = pd.DataFrame(records)
    return frame.astype({"parameters": "Int64"})
