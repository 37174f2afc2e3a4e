"""What the page's charts are made of: frames, marks, hover texts and the two looks.

Colours, markers and dashes are those of the printed figures (`style.py`). Figures name palette
colours only; `THEMES` says how the page swaps them on a dark ground. No data is chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from ltrobust.report import style
from ltrobust.report.aggregate import ranked_labels, scores
from ltrobust.report.groups import Group
from ltrobust.report.markup import percent
from ltrobust.report.readings import Reading
from ltrobust.report.style import BAR_COLOUR, PALETTE, Dash, Mark, marks_for

SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
DASHES: dict[Dash, str] = dict(
    zip(
        style.DASHES,
        ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "6px,2px,2px,2px,2px,2px"),
        strict=True,
    )
)
HATCHES = dict(zip(style.HATCHES, ("", "/", ".", "x", "\\", "+", "-"), strict=True))
DARK = dict(
    zip(
        PALETTE,
        ("#5AA9E6", "#FF8C42", "#2CCB9A", "#F0A6CC", "#FFC65C", "#A9DEFF", "#FFFFFF"),
        strict=True,
    )
)
"""Each palette colour's stand-in on a dark ground."""
HEIGHT = 380
BAR_ERROR = "#606770"
"""Error bars on filled bars: seen on both grounds."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class View:
    """One figure of a chart and the name of the button that shows it."""

    name: str
    figure: go.Figure


@dataclass(frozen=True)
class Chart:
    """A titled chart; `note` says what is drawn and how to read it."""

    name: str
    title: str
    note: str
    views: tuple[View, ...]


def attack_title(attack: str) -> str:
    """Write an attack's name as readers know it: "PGD-20", "AutoAttack"; others as they are."""
    if attack == "autoattack":
        return "AutoAttack"
    if attack in ("clean", "noise"):
        return attack.capitalize()
    if attack == "fgsm":
        return "FGSM"
    family, digits = attack.rstrip("0123456789"), attack[len(attack.rstrip("0123456789")) :]
    if family in ("pgd", "cw", "mim", "lsa", "dlr", "tpgd") and digits:
        return f"{family.upper()}-{digits}"
    return attack


def plain(text: object) -> str:
    """Escape a name for plotly, which reads tags and entities in all its texts."""
    escaped = " ".join(str(text).split())
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def duration(seconds: float) -> str:
    """Write seconds for people: "45 s", "12 min 5 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def new_chart(x_title: str, y_title: str) -> go.Figure:
    """An empty chart without data, legend or colours of its own."""
    figure = go.Figure()
    figure.update_layout(
        template=None,
        height=HEIGHT,
        margin={"l": 56, "r": 18, "t": 14, "b": 52},
        showlegend=False,
        hovermode="closest",
        dragmode=False,
    )
    figure.update_xaxes(title_text=x_title, automargin=True)
    figure.update_yaxes(title_text=y_title, automargin=True)
    return figure


def ranked_marks(group: Group) -> dict[str, Mark]:
    """Marks of the group's labels, best label first."""
    marks = marks_for(group.labels)
    return {label: marks[label] for label in ranked_labels(scores(group))}


def identity(group: Group, label: str) -> dict[str, Any]:
    """What the page finds a method's traces by, whatever its name."""
    return {"name": plain(label), "meta": method_key(group, label)}


def method_key(group: Group, label: str) -> str:
    """A label's name in the page's markup: safe, and the same in all charts of its group."""
    return f"m{group.labels.index(label)}"


def marker(mark: Mark, size: int) -> dict[str, Any]:
    """A method's marker, `size` in pixels."""
    return {
        "color": mark.colour,
        "symbol": SYMBOLS[mark.marker],
        "size": size,
        "line": {"width": 0},
    }


def error_bars(found: Sequence[Reading], colour: str) -> dict[str, Any]:
    """Error bars in percent, one a reading; hidden where no reading has any."""
    above = [as_percent(reading.above) for reading in found]
    below = [as_percent(reading.below) for reading in found]
    if all(value is None for value in above):
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [value or 0 for value in above],
        "arrayminus": [value or 0 for value in below],
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def quantity(reading: Reading) -> str:
    """A score in percent with what qualifies it, as plotly markup."""
    if not reading.known:
        return "not measured for every seed"
    return f"<b>{percent(reading.mean)}%</b>" + (f" ({reading.words})" if reading.words else "")


def facts(group: Group, label: str) -> str:
    """What a mean must never stand without: test images, of all classes, and seeds."""
    return f"{int(group.key['n']):,} test images in all, {seeds_text(group, label)}"


def seeds_text(group: Group, label: str) -> str:
    """The seeds of one row in words."""
    seeds = group.seeds(label)
    return f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"


def hover_text(name: object, lines: Sequence[str]) -> str:
    """Hover text under a bold name; `lines` are plotly markup already."""
    return "<br>".join([f"<b>{plain(name)}</b>", *(line for line in lines if line)])


def hover(texts: list[str]) -> dict[str, Any]:
    """Trace settings that show `texts`, one a point, and nothing else."""
    return {"hovertext": texts, "hoverinfo": "text"}


def as_percent(value: float) -> float | None:
    """A fraction in percent, None (a gap) for NaN."""
    return rounded(100 * value)


def rounded(value: float) -> float | None:
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
    layout = go.Layout(
        font={"family": _FONT, "size": 12.5, "color": ink},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis=axis,
        yaxis=axis,
        hoverlabel={
            "bgcolor": surface,
            "bordercolor": soft,
            "font": {"color": ink, "family": _FONT, "size": 13},
            "align": "left",
        },
        legend={"bgcolor": "rgba(0,0,0,0)", "font": {"color": ink}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": soft, "activecolor": ink},
    )
    return {"layout": layout.to_plotly_json()}


THEMES = {
    "light": {
        "template": _theme("#1b2130", "#5a6475", "#e3e7ee", "#ffffff"),
        "colours": {},
    },
    "dark": {
        "template": _theme("#e8ecf4", "#a3adbf", "#2c3444", "#1a2130"),
        "colours": {**DARK, BAR_COLOUR: "#333c4d", BAR_ERROR: "#c3cad6"},
    },
}
"""What the page lays under every figure, and which colours it swaps."""
