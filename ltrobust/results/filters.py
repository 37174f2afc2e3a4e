"""Which runs a report is asked for, by what stands of them in metrics.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from ltrobust.errors import UserError, unknown

_FOUND_SHOWN = 6


@dataclass(frozen=True)
class Filters:
    """Which results are wanted; an empty tuple wants all.

    Attributes:
        dataset: names, as in metrics.csv.
        imbalance_ratio: n_max / n_min as asked for.
        arch: names.
        recipe: names.
        methods: names, as in the column `method`.
    """

    dataset: tuple[str, ...] = ()
    imbalance_ratio: tuple[float, ...] = ()
    arch: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    @property
    def chosen(self) -> dict[str, tuple[Any, ...]]:
        """Those that want less than all."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: wanted for name, wanted in values.items() if wanted}


def parse_filters(**asked: str | float | Sequence[str | float] | None) -> Filters:
    """Read comma lists or lists of values, one for each field of `Filters`; None wants all.

    Raises:
        UserError: an empty item, or an imbalance ratio that is no number.
    """
    lists = {name: _items(name, values) for name, values in asked.items() if values is not None}
    ratios = tuple(_ratio(text) for text in lists.pop("imbalance_ratio", ()))
    return Filters(imbalance_ratio=ratios, **lists)


def check_filters(rows: pd.DataFrame, filters: Filters) -> None:
    """Look whether filters leave anything.

    Args:
        rows: all metric rows.
        filters: what is wanted.

    Raises:
        UserError: a value that no row has, or no row has all; the message names what is there.
    """
    for name, wanted in filters.chosen.items():
        there = rows[_column(name)].map(shown).unique()
        for value in map(shown, wanted):
            if value not in there:
                raise unknown(_flag(name), value, there)
    if not filtered(rows, filters).any():
        asked = " ".join(
            f"{_flag(name)} {','.join(map(shown, wanted))}"
            for name, wanted in filters.chosen.items()
        )
        raise UserError(f"no result agrees with all of {asked}; there: {_found(rows)}")


def filtered(rows: pd.DataFrame, filters: Filters) -> pd.Series:
    """Whether each metric row is wanted."""
    keep = pd.Series(True, index=rows.index)
    for name, wanted in filters.chosen.items():
        keep &= rows[_column(name)].map(shown).isin([shown(value) for value in wanted])
    return keep


def shown(value: Any) -> str:
    """Write a value as in a message: 50.0 as 50."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _items(name: str, values: str | float | Sequence[str | float]) -> tuple[str, ...]:
    given = [values] if isinstance(values, str | int | float) else values
    text = ",".join(str(value) for value in given)
    items = tuple(item.strip() for item in text.split(","))
    if "" in items:
        raise UserError(f"{_flag(name)} '{text}' holds an empty item; write a,b")
    return items


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not ratio >= 1 or math.isinf(ratio):
        raise UserError(f"--imbalance-ratio '{text}' must be a number >= 1; write 10 or 10,50")
    return ratio


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _column(name: str) -> str:
    return "method" if name == "methods" else name


def _found(rows: pd.DataFrame) -> str:
    """What results there are, in a few words."""
    keys = ["dataset", "imbalance_ratio", "imbalance_type", "arch", "recipe"]
    texts = [
        f"{dataset} IR {ratio:g} {kind} {arch} {recipe} ({', '.join(sorted(set(block['method'])))})"
        for (dataset, ratio, kind, arch, recipe), block in rows.groupby(keys, sort=False)
    ]
    more = f" and {len(texts) - _FOUND_SHOWN} more" if len(texts) > _FOUND_SHOWN else ""
    return "; ".join(texts[:_FOUND_SHOWN]) + more
