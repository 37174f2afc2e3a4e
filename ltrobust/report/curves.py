"""Figures of balanced accuracy along one setting: radius, number of steps, imbalance ratio.

Each is a function of a frame from `sweeps.py`: one panel an attack, one line a label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ltrobust.report.labels import apart, legend_below, legend_height
from ltrobust.report.style import (
    PERCENT,
    WIDTH,
    Mark,
    empty_figure,
    in_style,
    marks_for,
    new_figure,
    short,
)

_WIDE = 10.0
"""Largest over smallest value from which an axis becomes logarithmic."""


@dataclass(frozen=True)
class _Across:
    """The horizontal axis of a panel."""

    name: str
    logarithmic: bool
    write: Callable[[float], str]


@in_style
def eps_figure(
    frame: pd.DataFrame, shown: Mapping[str, str] | None = None, labels: Sequence[str] = ()
) -> Figure:
    """Balanced accuracy against the radius of the attack; eps 0 is without an attack.

    Args:
        frame: from `eps_sweeps`.
        shown: label to label as written in the legend; default as it is.
        labels: all labels of the report, so that each keeps its colour when some are not here.
    """

    def across(attack: str, values: Sequence[float]) -> _Across:
        steps = [255 * value for value in values]
        if "-l2" in attack:
            return _Across("eps (L2)", False, lambda x: f"{x:.3g}")
        if all(abs(step - round(step)) < 1e-4 for step in steps):
            return _Across("eps (1/255)", False, lambda x: f"{255 * x:.0f}")
        return _Across("eps", False, lambda x: f"{x:.3g}")

    return _panels(frame, across, shown, labels)


@in_style
def steps_figure(
    frame: pd.DataFrame, shown: Mapping[str, str] | None = None, labels: Sequence[str] = ()
) -> Figure:
    """Balanced accuracy against the attack's number of steps, logarithmic from a tenfold span on.

    Args:
        frame: from `steps_sweep`.
        shown: label to label as written in the legend; default as it is.
        labels: all labels of the report, so that each keeps its colour when some are not here.
    """

    def across(_: str, values: Sequence[float]) -> _Across:
        wide = max(values) > _WIDE * min(values)
        return _Across("number of steps N", wide, lambda x: f"{x:.0f}")

    return _panels(frame, across, shown, labels)


@in_style
def ratio_figure(
    frame: pd.DataFrame,
    shown: Mapping[str, str] | None = None,
    labels: Sequence[str] = (),
    kind: str = "",
) -> Figure:
    """Balanced accuracy against the imbalance ratio, without an attack and under the strongest.

    Args:
        frame: from `ratio_sweep`.
        shown: label to label as written in the legend; default as it is.
        labels: all labels of the report, so that each keeps its colour when some are not here.
        kind: of imbalance, "exp" or "step"; "" when unknown.
    """
    across = _Across(f"imbalance ratio{f' ({kind})' if kind else ''}", True, lambda x: f"{x:g}")
    return _panels(frame, lambda *_: across, shown, labels)


def _panels(
    frame: pd.DataFrame,
    across: Callable[[str, Sequence[float]], _Across],
    shown: Mapping[str, str] | None,
    labels: Sequence[str],
) -> Figure:
    if frame.empty:
        return empty_figure("needs results at two values")
    attacks = list(dict.fromkeys(frame["attack"]))
    drawn = set(frame["label"])
    marks = {name: mark for name, mark in marks_for([*labels, *drawn]).items() if name in drawn}
    names = [(shown or {}).get(label, label) for label in marks]
    columns = min(len(attacks), 2)
    rows = math.ceil(len(attacks) / columns)
    figure = new_figure(2.3 * rows + 0.2 + legend_height(names, WIDTH))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (axes, attack) in enumerate(zip(panels, attacks, strict=False)):
        own = frame[frame["attack"] == attack]
        values = sorted(set(own["x"]))
        _lines(axes, own, marks)
        _across_axis(axes, across(attack, values), values, (WIDTH - 0.8) / columns)
        axes.set_title(short(attack, 40 // columns))
        axes.set_ylabel("balanced accuracy (%)" if place % columns == 0 else "")
        axes.locator_params(axis="y", nbins=6)
    for axes in panels[len(attacks) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], color=mark.colour, linestyle=mark.dash, marker=mark.marker)
        for mark in marks.values()
    ]
    legend_below(figure, handles, names)
    return figure


def _lines(axes: Axes, own: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """One line a label with its deviation over seeds; a missing mean leaves a gap."""
    for label, mark in marks.items():
        line = own[own["label"] == label].sort_values("x")
        deviation = None if line["std"].isna().all() else PERCENT * line["std"].fillna(0)
        axes.errorbar(
            line["x"],
            PERCENT * line["mean"],
            yerr=deviation,
            color=mark.colour,
            linestyle=mark.dash,
            marker=mark.marker,
            elinewidth=0.8,
            capsize=2,
        )


def _across_axis(axes: Axes, across: _Across, values: Sequence[float], room: float) -> None:
    """Set scale, margins and as many ticks of the values as fit into `room` inches."""
    axes.set_xlabel(across.name)
    scaled = [math.log10(x) for x in values] if across.logarithmic else list(values)
    low, high = scaled[0], scaled[-1]
    margin = 0.05 * (high - low) or 0.1
    low, high = low - margin, high + margin
    if across.logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(10**low, 10**high)
    else:
        axes.set_xlim(low, high)
    texts = [across.write(x) for x in values]
    kept = apart([(x - low) / (high - low) for x in scaled], texts, room)
    axes.set_xticks([values[place] for place in kept], [texts[place] for place in kept])
    axes.xaxis.set_minor_locator(NullLocator())
