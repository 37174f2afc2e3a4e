"""The rows of metrics.csv as plain values, taken out of their frame once.

A row says what one run reached under one attack. Nothing is averaged and nothing compared here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pandas as pd

Row = Mapping[str, Any]
"""Column to value; what is missing is NaN, None or NA, as it was in the frame."""
_MEASURED = (
    *("seconds", "n_train", "train_seconds", "peak_memory_bytes", "parameters"),
    *("n_class_min", "n_class_max", "train_cpu_seconds", "cpu_seconds"),
)


def read_rows(metrics: pd.DataFrame) -> list[Row]:
    """Take a frame apart, and say of each row what decides whether its attack may be compared.

    Returns:
        Rows with three columns more: `signature` (settings but the seed and, of an attack that is
        not ours, its library), `search` (precision in which it searched) and `radius`.
    """
    found: list[Row] = []
    plain: Any = metrics.astype(dict.fromkeys(_MEASURED, float)).to_dict("records")
    for row in plain:
        told = _told(row["attack_settings"], row["attack_library"])
        found.append({**row, **told, "radius": round(row["eps"], 9)})
    return found


@cache
def _told(text: str, library: str) -> dict[str, str]:
    settings = settings_of(text)
    # of an attack of ours the settings' protocol decides, whatever the version
    theirs = "" if library.partition(" ")[0] == "ltrobust" else library
    return {
        "signature": compact_json([settings, theirs]),
        "search": settings.get("search", "fp32"),
    }


def settings_of(settings: str) -> dict[str, Any]:
    """Parse an attack's settings (JSON text) and leave out its seed."""
    known: dict[str, Any] = json.loads(settings)
    return {name: value for name, value in known.items() if name != "seed"}


def compact_json(value: Any) -> str:
    """Write `value` as JSON without blanks, keys sorted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def key_of(row: Row, names: Iterable[str]) -> tuple[Any, ...]:
    """Values of a row, those that are missing as None, so that they equal each other."""
    values = (row[name] for name in names)
    return tuple(None if value != value else value for value in values)


def alike(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of these columns, in the order in which they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(key_of(row, names), []).append(row)
    return found


def by_seed(row: Row) -> tuple[int, str]:
    """Sort key: seeds in increasing order, then run ids."""
    return int(row["seed"]), row["run_id"]
