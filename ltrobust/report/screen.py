"""Draws charts for the page, as the plain values that plotly.js reads, with hover texts.

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
_DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "6px,2px,2px,2px,2px,2px"]
DASHES: dict[Dash, str] = dict(zip(style.DASHES, _DASHES, strict=True))
HATCHED = dict(zip(style.HATCHES, ("", "/", ".", "x", "\\", "+", "-"), strict=True))
GREY = "#8C8C8C"
_DARK = ["#5AA9E6", "#FF8C42", "#2CCB9A", "#F0A6CC", "#FFC65C", "#A9DEFF", "#FFFFFF"]
DARK = dict(zip(PALETTE, _DARK, strict=True))
"""Each palette colour's stand-in on a dark ground."""
HEIGHT = 380
BAR_ERROR = "#606770"
"""Error bars on filled bars: seen on both grounds."""
_LABELLED_POINTS = 7
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def show_panel(panel: Panel, keys: Mapping[str, str], legend: bool = False) -> dict[str, Any]:
    """Draw one panel.

    Args:
        panel: what to draw.
        keys: a series' key to what the page switches its traces by; others are always there.
        legend: whether it has a legend of its own.

    Returns:
        `data` and `layout` as plotly.js takes them, without colours of the ground.
    """
    layout: dict[str, Any] = {
        "height": HEIGHT,
        "margin": {"l": 56, "r": 18, "t": 14, "b": 52},
        "showlegend": legend,
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y),
    }
    if panel.heat is not None:
        return {"data": [_heat(panel.heat)], "layout": layout | _heat_layout(panel.heat)}
    data = [_counts(panel.counts, layout)] if panel.counts is not None else []
    named = panel.named and len(panel.series) <= _LABELLED_POINTS
    middle = _middle(panel)
    for series in panel.series:
        trace = _bars(series) if series.kind == "bars" else _line(series)
        trace |= {"name": plain(series.name), **_places(series.x, series.y)}
        trace |= _hover(series.hover)
        if named and series.name:
            left = bool(series.x) and series.x[0] > middle
            trace |= {
                "mode": "markers+text",
                "text": [plain(short(series.name))],
                "textposition": "top left" if left else "top right",
            }
        trace |= {"cliponaxis": False} if panel.named else {}
        switch = {"meta": keys[series.key]} if series.key in keys else {}
        data.append(trace | switch)
        if series.band and series.y_ends:
            data.append(_band(series) | switch)
    if any(series.kind == "bars" for series in panel.series):
        layout["barmode"] = "overlay"  # bars stand where the description puts them
        layout["yaxis"]["rangemode"] = "tozero"
    if legend:
        place = {"x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}
        layout["legend"] = {"orientation": "h", **place}
        layout["margin"] |= {"t": 36}
        layout["height"] = 340
    return {"data": data, "layout": layout}


def plain(text: object) -> str:
    """Escape a name for plotly, which reads tags and entities in all its texts."""
    escaped = " ".join(str(text).split())
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _axis(axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": plain(axis.title)}, "automargin": True}
    if axis.ticks:
        places, texts = zip(*axis.ticks, strict=True)
        made |= _ticks(places, texts)
    if axis.log:
        made["type"] = "log"
    if axis.span is not None:
        made["range"] = list(axis.span)
    if axis.names:
        made |= {"range": [-0.6, len(axis.ticks) - 0.4], "showgrid": False}
    return made


def _ticks(places: Sequence[float], texts: Sequence[str], limit: int = 18) -> dict[str, Any]:
    shown = [plain(short(text, limit)) for text in texts]
    return {"tickmode": "array", "tickvals": list(places), "ticktext": shown}


def _places(x: Iterable[float], y: Iterable[float]) -> dict[str, Any]:
    return {"x": [_rounded(place) for place in x], "y": [_rounded(value) for value in y]}


def _counts(counts: Counts, layout: dict[str, Any]) -> dict[str, Any]:
    """Bars of training images behind everything, on the right axis."""
    pairs = zip(counts.names, counts.values, strict=True)
    bars = {
        "type": "bar",
        "marker": {"color": BAR_COLOUR},
        "name": counts.title,
        "showlegend": False,
        "x": list(range(len(counts.names))),
        "y": [_rounded(value) for value in counts.values],
        **_hover([(name, f"{value:,.0f} {counts.title}") for name, value in pairs]),
    }
    layout |= {"bargap": 0 if len(counts.names) > 20 else 0.16}
    layout["xaxis"] |= {"range": [-0.6, len(counts.names) - 0.4], "showgrid": False}
    if not counts.log:
        return bars
    known = [max(1.0, value) for value in counts.values]
    layout["yaxis"] |= {"overlaying": "y2"}
    layout["yaxis2"] = {
        "side": "right",
        "type": "log",
        "range": [math.log10(min(known) / 2), math.log10(max(known) * 1.5)],
        "title": {"text": counts.title},
        "showgrid": False,
        "dtick": 1,
        "automargin": True,
    }
    return bars | {"yaxis": "y2"}


def _bars(series: Series) -> dict[str, Any]:
    colour = series.mark.colour
    if series.hollow:
        look: dict[str, Any] = {
            "color": "rgba(0,0,0,0)",
            "line": {"color": colour, "width": 1.2},
            "pattern": {"shape": "/", "fgcolor": colour, "fillmode": "replace"},
        }
    else:
        shape = HATCHED[series.mark.hatch]
        look = {"color": colour, "pattern": {"shape": shape, "fillmode": "overlay"}}
    return {
        "type": "bar",
        "width": series.width,
        "text": list(series.signs),
        "textposition": "inside",
        "insidetextanchor": "start",
        "textangle": 0,
        "error_y": _error(series.y, series.y_ends, BAR_ERROR),
        "marker": look,
    }


def _line(series: Series) -> dict[str, Any]:
    colour, symbol = series.mark.colour, SYMBOLS[series.mark.marker]
    points = series.kind == "points"
    if series.cross:
        symbol = "x-thin-open"
    elif series.hollow:
        symbol += "-open"
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers" if points else "lines+markers" if series.points else "lines",
        "marker": {
            "color": colour,
            "symbol": symbol,
            "size": 11 if points else 7,
            "line": {"width": 1 if series.cross else 0},
        },
    }
    if not points:
        trace["line"] = {"color": colour, "dash": DASHES[series.mark.dash], "width": 2}
    if not series.band:
        trace["error_y"] = _error(series.y, series.y_ends, colour)
        trace["error_x"] = _error(series.x, series.x_ends, colour)
    if series.faint:
        trace |= {"opacity": 0.4, "showlegend": False}
    return trace


def _band(series: Series) -> dict[str, Any]:
    """The interval around a line, as a filled shape."""
    low, high = zip(*series.y_ends, strict=True)
    return {
        "type": "scatter",
        "name": plain(series.name),
        **_places((*series.x, *reversed(series.x)), (*high, *reversed(low))),
        "fill": "toself",
        "mode": "none",
        "fillcolor": series.mark.colour,
        "opacity": 0.15,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _heat(heat: Heat) -> dict[str, Any]:
    low, high = heat.span
    rows = list(zip(heat.rows, heat.hover or [()] * len(heat.rows), strict=True))
    return {
        "type": "heatmap",
        "x": list(range(len(heat.columns))),
        "y": list(range(len(heat.rows))),
        "z": [[_rounded(value) for value in row] for row in heat.values],
        "zmin": low,
        "zmax": high,
        "colorscale": [[0, "#eef3fa"], [1, PALETTE[0]]],
        "colorbar": {"title": {"text": plain(heat.unit), "side": "right"}, "thickness": 12},
        "hovertext": [
            [f"<b>{plain(name)}</b><br>{plain(t)}" for t in texts] for name, texts in rows
        ],
        "hoverinfo": "text",
    }


def _heat_layout(heat: Heat) -> dict[str, Any]:
    places = range(len(heat.columns)) if len(heat.columns) <= 20 else ()
    down = _ticks(range(len(heat.rows)), heat.rows, 24)
    return {
        "height": max(HEIGHT, 90 + 16 * len(heat.rows)),
        "xaxis": {**_ticks(places, heat.columns), "automargin": True},
        "yaxis": {**down, "automargin": True, "autorange": "reversed"},
    }


def _error(values: Sequence[float], ends: Sequence[Ends], colour: str) -> dict[str, Any]:
    """Error bars, one a point; hidden where there is none."""
    if not any(low == low for low, _ in ends):
        return {"visible": False}
    pairs = list(zip(values, ends, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [_rounded(high - value) or 0 for value, (_, high) in pairs],
        "arrayminus": [_rounded(value - low) or 0 for value, (low, _) in pairs],
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def _hover(points: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Trace settings that show these lines, the first bold, and nothing else."""
    if len(points) == 1 and any("{y}" in line for line in points[0][1:]):
        told = [plain(line).replace("{x}", "%{x}") for line in points[0][1:]]
        lines = [line.replace("{y}", "%{y:.2f}") for line in told]
        return {
            "hovertemplate": "<br>".join(["<b>%{fullData.name}</b>", *lines]) + "<extra></extra>"
        }
    texts = ["<br>".join([f"<b>{plain(p[0])}</b>", *map(plain, p[1:])]) for p in points if p]
    return {"hovertext": texts, "hoverinfo": "text"}


def _middle(panel: Panel) -> float:
    """Middle of the points: names to the right of it stand to their left, inside the chart."""
    places = [x for series in panel.series for x in series.x]
    return (min(places, default=0) + max(places, default=0)) / 2


def _rounded(value: float) -> float | None:
    """Enough digits for a screen; None (a gap) for NaN."""
    return None if math.isnan(value) else round(float(value), 4)


def _theme(ink: str, soft: str, grid: str, surface: str) -> dict[str, Any]:
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zeroline": False,
        "tickcolor": grid,
        "tickfont": {"color": soft},
        "title": {"font": {"color": ink, "size": 13}, "standoff": 10},
    }
    clear = "rgba(0,0,0,0)"
    font = {"color": ink, "family": _FONT, "size": 13}
    layout = {
        "font": {"family": _FONT, "size": 12.5, "color": ink},
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {"bgcolor": surface, "bordercolor": soft, "font": font, "align": "left"},
        "legend": {"bgcolor": clear, "font": {"color": ink}},
        "modebar": {"bgcolor": clear, "color": soft, "activecolor": ink},
    }
    return {"layout": layout}


THEMES = {
    "light": {"template": _theme("#1b2130", "#5a6475", "#e3e7ee", "#ffffff"), "colours": {}},
    "dark": {
        "template": _theme("#e8ecf4", "#a3adbf", "#2c3444", "#1a2130"),
        "colours": {**DARK, BAR_COLOUR: "#333c4d", BAR_ERROR: "#c3cad6", GREY: "#9aa3b2"},
    },
}
"""What the page lays under every figure, and which colours it swaps."""
