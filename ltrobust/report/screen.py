"""Describes charts for the page, as the plain values that `templates/chart.js` draws.

Colours, markers and dashes are those of print (`style.py`). Figures name palette colours only;
`THEMES` says how the page swaps them on a dark ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltrobust.report import style
from ltrobust.report.chart import Axis, Counts, Ends, Heat, Panel, Series
from ltrobust.report.style import BAR_COLOUR, PALETTE, Dash, short

_SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"]
SYMBOLS = dict(zip(style.MARKERS, _SYMBOLS, strict=True))
_DASHES = ["", "8 5", "2 4", "8 4 2 4", "14 5", "14 4 3 4", "8 3 2 3 2 3"]
DASHES: dict[Dash, str] = dict(zip(style.DASHES, _DASHES, strict=True))
HATCHED = dict(zip(style.HATCHES, ("", "/", ".", "x", "\\", "+", "-"), strict=True))
GREY = "#8C8C8C"
_DARK = ["#5AA9E6", "#FF8C42", "#2CCB9A", "#F0A6CC", "#FFC65C", "#A9DEFF", "#FFFFFF"]
DARK = dict(zip(PALETTE, _DARK, strict=True))
"""Each palette colour's stand-in on a dark ground."""
HEIGHT = 380
_LABELLED_POINTS = 7


def show_panel(panel: Panel, keys: Mapping[str, str], legend: bool = False) -> dict[str, Any]:
    """Describe one panel.

    Args:
        panel: what to draw.
        keys: a series' key to what the page switches its traces by; others are always there.
        legend: whether it has a legend of its own.

    Returns:
        `data` (traces, those behind first) and `layout` (axes, height, legend).
    """
    layout: dict[str, Any] = {"height": 340 if legend else HEIGHT}
    layout |= {"legend": True} if legend else {}
    if panel.heat is not None:
        layout["height"] = max(HEIGHT, 90 + 16 * len(panel.heat.rows))
        return {"data": [_heat(panel.heat)], "layout": layout}
    layout |= {"x": _axis(panel.x), "y": _axis(panel.y)}
    if any(series.kind == "bars" for series in panel.series):
        layout["y"]["zero"] = True
    data = [_counts(panel.counts, layout)] if panel.counts is not None else []
    named = panel.named and len(panel.series) <= _LABELLED_POINTS
    for series in panel.series:
        trace = _bars(series) if series.kind == "bars" else _line(series)
        trace |= {"name": series.name, "x": _rounded(series.x), "y": _rounded(series.y)}
        trace |= _hover(series.hover)
        if named and series.name:
            trace["label"] = short(series.name)
        if legend and series.entry:
            trace["legend"] = series.entry
        switch = {"meta": keys[series.key]} if series.key in keys else {}
        if series.band and series.y_ends:
            data.append(_band(series) | switch)
        data.append(trace | switch)
    return {"data": data, "layout": layout}


def _axis(axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {"title": axis.title.split("\n")[0]}
    if axis.ticks:
        made["ticks"] = [[place, text] for place, text in axis.ticks]
    if axis.span is not None:
        made["span"] = list(axis.span)
    return made | {name: True for name in ("log", "names", "whole") if getattr(axis, name)}


def _counts(counts: Counts, layout: dict[str, Any]) -> dict[str, Any]:
    """Bars of training images behind everything, on the right axis."""
    pairs = zip(counts.names, counts.values, strict=True)
    layout["x"]["span"] = [-0.6, len(counts.names) - 0.4]
    if counts.log:
        known = [max(1.0, value) for value in counts.values]
        span = [math.log10(min(known) / 2), math.log10(max(known) * 1.5)]
        layout["y2"] = {"title": counts.title, "log": True, "span": span}
    return {
        "type": "counts",
        "name": counts.title,
        "x": list(range(len(counts.names))),
        "y": _rounded(counts.values),
        "hover": [[name, f"{value:,.0f} {counts.title}"] for name, value in pairs],
    }


def _bars(series: Series) -> dict[str, Any]:
    look = {"hollow": True} if series.hollow else {"hatch": HATCHED[series.mark.hatch]}
    return {
        "type": "bars",
        "colour": series.mark.colour,
        "width": series.width,
        "text": list(series.signs),
        **_error("error_y", series.y, series.y_ends),
        **look,
    }


def _line(series: Series) -> dict[str, Any]:
    points = series.kind == "points"
    trace: dict[str, Any] = {"type": series.kind, "colour": series.mark.colour}
    if points or series.points:
        trace["symbol"] = SYMBOLS[series.mark.marker]
    if not points:
        trace["dash"] = DASHES[series.mark.dash]
    if not series.band:
        trace |= _error("error_y", series.y, series.y_ends)
        trace |= _error("error_x", series.x, series.x_ends)
    return trace | {name: True for name in ("cross", "hollow", "faint") if getattr(series, name)}


def _band(series: Series) -> dict[str, Any]:
    """The interval around a line, as a filled shape."""
    low, high = zip(*series.y_ends, strict=True)
    ends = {"low": _rounded(low), "high": _rounded(high)}
    return {"type": "band", "colour": series.mark.colour, "x": _rounded(series.x), **ends}


def _heat(heat: Heat) -> dict[str, Any]:
    digits = 1 if heat.square else 4
    return {
        "type": "heat",
        "colour": PALETTE[0],
        "rows": list(heat.rows),
        "columns": list(heat.columns),
        "z": [_rounded(row, digits) for row in heat.values],
        "span": list(heat.span),
        "unit": heat.unit,
        "hover": [list(texts) for texts in heat.hover],
        "signs": [list(signs) for signs in heat.signs],
    }


def _error(name: str, values: Sequence[float], ends: Sequence[Ends]) -> dict[str, Any]:
    """Error bars, one a point, 0 where there is none; nothing without any."""
    if not any(low == low for low, _ in ends):
        return {}
    pairs = list(zip(values, ends, strict=True))
    array = _rounded(high - value for value, (_, high) in pairs)
    arrayminus = _rounded(value - low for value, (low, _) in pairs)
    return {name: {"array": [v or 0 for v in array], "arrayminus": [v or 0 for v in arrayminus]}}


def _hover(points: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The lines about each point; one for all points is a template for {x} and {y}."""
    if len(points) == 1 and any("{y}" in line for line in points[0][1:]):
        return {"template": list(points[0])}
    return {"hover": [list(lines) for lines in points]} if points else {}


def _rounded(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Enough digits for a screen; None (a gap) for NaN."""
    return [None if math.isnan(value) else round(float(value), digits) for value in values]


THEMES = {
    "light": {
        "ink": "#1b2130",
        "soft": "#5a6475",
        "grid": "#e3e7ee",
        "bar": BAR_COLOUR,
        "colours": {},
    },
    "dark": {
        "ink": "#e8ecf4",
        "soft": "#a3adbf",
        "grid": "#2c3444",
        "bar": "#333c4d",
        "colours": {**DARK, GREY: "#9aa3b2"},
    },
}
"""Colours of text, grid and bars of counts, and which palette colours the page swaps."""
