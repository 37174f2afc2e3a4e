"""What each method costs: time of training and of every attack, memory, parameters.

Times of different devices stand in rows of their own: a row holds the runs of one method that have
anything measured on one device, and a value that one of them lacks is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import Spread, over_seeds, ranked_labels, scores
from ltrobust.report.captions import describe, spread_note
from ltrobust.report.groups import Group
from ltrobust.report.markup import Quantity, Table

_UNITS = ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))
"""From so many seconds on, seconds in the unit, its name."""
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Cost:
    """What one method costs on one device.

    Attributes:
        label: row label of the group.
        device: where it was measured, in words; "" when unknown.
        runs: run ids, in the order of their seeds.
        train_seconds: of the training.
        memory_bytes: most memory by the end of the training.
        parameters: of the trained network; NaN when unknown.
        attack_seconds: attack to time of its evaluation.
    """

    label: str
    device: str
    runs: tuple[str, ...]
    train_seconds: Spread
    memory_bytes: Spread
    parameters: float
    attack_seconds: dict[str, Spread]


def costs(group: Group) -> list[Cost]:
    """Average what was measured over seeds, never over devices, best method first.

    Training times, memory and attack times that one of a row's runs lacks are NaN: the device may
    be another, the run not trained here, or its record older.
    """
    rows = group.rows.assign(
        device=group.rows["device"].fillna(""),
        attack_device=[
            where if isinstance(where, str) and where else trained
            for where, trained in zip(
                group.rows["attack_device"], group.rows["device"].fillna(""), strict=True
            )
        ],
    )
    return [
        _cost(label, device, rows[rows["label"] == label], group.runs(label), group.attacks)
        for label in ranked_labels(scores(group))
        for device in _devices(rows[rows["label"] == label])
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
    devices = list(dict.fromkeys(cost.device for cost in found))
    train, unit = _in_units([cost.train_seconds for cost in found])
    rows: list[dict[str, Any]] = [{"method": cost.label} for cost in found]
    columns: dict[str, Sequence[Quantity | str]] = {}
    if len(devices) > 1:
        columns["device"] = [cost.device or "unknown" for cost in found]
    columns[f"training ({unit})"] = train
    for attack in attacks:
        times, unit = _in_units([cost.attack_seconds[attack] for cost in found])
        columns[f"{attack} ({unit})"] = times
    columns["memory (GB)"] = [_quantity(cost.memory_bytes, _GIGABYTE) for cost in found]
    columns["parameters"] = [Quantity(cost.parameters, math.nan, 1, digits=0) for cost in found]
    for name, cells in columns.items():
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    caption = f"{describe(group)}{_measured(devices)}{_gaps(rows)}"
    caption += f"{spread_note([group])}"
    data = _data(group, found)
    return Table("cost", "Cost of training and evaluation", caption, pd.DataFrame(rows), data=data)


def _cost(
    label: str, device: str, own: pd.DataFrame, runs: Sequence[str], attacks: Sequence[str]
) -> Cost:
    trained = own[own["device"] == device].drop_duplicates("run_id").set_index("run_id")
    attacked = own[own["attack_device"] == device]
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
        device,
        tuple(here),
        measured("train_seconds"),
        measured("peak_memory_bytes"),
        float(sizes.pop()) if len(sizes) == 1 else math.nan,
        {
            attack: over_seeds([times.get((run, attack), math.nan) for run in here])
            for attack in attacks
        },
    )


def _devices(own: pd.DataFrame) -> list[str]:
    """Where the runs of one label were trained, then where else they were attacked."""
    return list(dict.fromkeys([*sorted(own["device"]), *sorted(own["attack_device"])]))


def _in_units(times: Sequence[Spread]) -> tuple[list[Quantity], str]:
    """Times in the one unit that fits the longest of them."""
    longest = max((time.mean for time in times if not math.isnan(time.mean)), default=0.0)
    seconds, unit = next((size, name) for start, size, name in _UNITS if longest >= start)
    return [_quantity(time, seconds) for time in times], unit


def _quantity(value: Spread, unit: float) -> Quantity:
    return Quantity(value.mean / unit, value.std / unit, value.n, digits=2)


def _measured(devices: Sequence[str]) -> str:
    where = f" Measured on {devices[0]}." if len(devices) == 1 and devices[0] else ""
    if len(devices) > 1:
        where = " Each row holds one device; devices are never averaged."
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
                "device": cost.device,
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
