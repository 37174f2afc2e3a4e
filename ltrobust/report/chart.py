"""What a chart is: panels of series with values, intervals, axes and texts, and nothing of a look.

Charts are described once (`charts.py`, `ltrobust.papers.charts`) and drawn by two renderers:
`printed` for paper and `screen` for the page. No library of either is needed here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from ltrobust.report.estimate import PERCENT, Estimate
from ltrobust.report.style import PALETTE, Mark

MANY = 8
"""More methods than these share no axes: a heat map or small multiples take their place."""
NAMED = 20
"""Of more points than these only the first `MANY` have their names beside them."""
Ends = tuple[float, float]
"""Lower and upper end of an interval in the axis' unit; NaN: none."""
NONE: Ends = (math.nan, math.nan)


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        title: what is measured, with its unit.
        brief: the same in print, where it differs.
        ticks: places and texts; empty: chosen by the renderer.
        log: whether it is logarithmic.
        span: fixed limits; None: what the data need.
        whole: whether ticks are whole numbers.
        names: whether ticks are names of categories, which stand at 0, 1, ...
    """

    title: str = ""
    ticks: tuple[tuple[float, str], ...] = ()
    brief: str = ""
    log: bool = False
    span: tuple[float, float] | None = None
    whole: bool = False
    names: bool = False


@dataclass(frozen=True)
class Series:
    """Values that are drawn alike.

    Attributes:
        name: as shown, with its signs.
        mark: its look.
        x: places; y: values, NaN is a gap.
        y_ends: intervals of the values; x_ends: of the places; empty: none.
        kind: a line through points, points, or bars of `width`.
        key: the row's label, by which it is switched on and off; "" for none.
        hover: lines about each point, plain text; one for all points may hold {x} and {y}.
        signs: text at the foot of each bar.
        hollow: drawn as an outline, as published values are.
        faint: drawn behind the others, without a place in the legend.
        band: intervals as a band, not as bars.
        cross: points are crosses: in doubt.
        points: whether a line shows its points.
        legend: its name in the legend where that is another; "" for none.
    """

    name: str
    mark: Mark
    x: tuple[float, ...]
    y: tuple[float, ...]
    y_ends: tuple[Ends, ...] = ()
    x_ends: tuple[Ends, ...] = ()
    kind: Literal["line", "points", "bars"] = "line"
    width: float = 0.0
    key: str = ""
    hover: tuple[tuple[str, ...], ...] = ()
    signs: tuple[str, ...] = ()
    hollow: bool = False
    faint: bool = False
    band: bool = False
    cross: bool = False
    points: bool = True
    legend: str | None = None

    @property
    def entry(self) -> str:
        """Its name in the legend; "" for none."""
        return ("" if self.faint else self.name) if self.legend is None else self.legend


@dataclass(frozen=True)
class Counts:
    """Numbers of training images behind a panel's classes, on an axis of their own.

    Attributes:
        names: of the classes, most frequent first.
        values: numbers of images, or percent of the most frequent class's.
        log: whether their axis is logarithmic; else it is the panel's own.
        title: of their axis.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    log: bool = True
    title: str = "training images"


@dataclass(frozen=True)
class Heat:
    """A grid of percentages, (rows, columns); NaN is a gap."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    unit: str
    span: tuple[float, float] = (0.0, PERCENT)
    square: bool = False
    hover: tuple[tuple[str, ...], ...] = ()
    signs: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        name: of the button that shows it on a screen.
        title: above it in print; "" for none.
        counts: what stands behind the series.
        heat: instead of series.
        named: whether points have their names beside them.
        guides: whether faint lines show the origin and where both axes agree.
        in_print: whether it is printed; all panels are shown on a screen.
        wide: whether it has a printed row of its own.
    """

    name: str
    title: str
    x: Axis = Axis()
    y: Axis = Axis()
    series: tuple[Series, ...] = ()
    counts: Counts | None = None
    heat: Heat | None = None
    named: bool = False
    guides: bool = False
    in_print: bool = True
    wide: bool = False


@dataclass(frozen=True)
class Chart:
    """A titled chart.

    Attributes:
        name: file name part, such as "balance".
        title: one line.
        note: on a screen: what is drawn and how to read it.
        columns: of the printed grid of panels.
        height: inches of a printed row.
        foot: below the printed figure, above its legend.
        head: above the printed figure.
        on_screen: whether the page has it.
        more: what stands in the legend beside the series.
        cut: most characters of a name in the legend.
    """

    name: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    columns: int = 2
    height: float = 2.3
    foot: tuple[str, ...] = ()
    head: str = ""
    on_screen: bool = True
    more: tuple[Series, ...] = ()
    cut: int = 24

    @property
    def printed(self) -> tuple[Panel, ...]:
        """The panels that are printed."""
        return tuple(panel for panel in self.panels if panel.in_print)

    @property
    def entries(self) -> list[Series]:
        """One series for each entry of the printed legend, in the order in which they come.

        Points that have their names beside them need none.
        """
        found: dict[str, Series] = {}
        for panel in self.printed:
            beside = panel.named and len(panel.series) <= NAMED
            for series in (*(() if beside else panel.series), *self.more):
                if series.entry:
                    found.setdefault(series.entry, series)
        return list(found.values())


def ends(found: Iterable[Estimate]) -> tuple[Ends, ...]:
    """Intervals in percent; empty where there is none at all."""
    pairs = tuple((PERCENT * low, PERCENT * high) for low, high in (one.ends for one in found))
    return pairs if any(low == low for low, _ in pairs) else ()


def values(found: Iterable[Estimate]) -> tuple[float, ...]:
    """Values in percent."""
    return tuple(PERCENT * one.value for one in found)


def by_method(chart: Chart) -> list[Chart]:
    """Small multiples of a chart of lines: a panel a method, a line for each panel there was.

    Returns:
        A chart for each pair of axes, all with the chart's name, numbered from the second on.
    """
    kinds: dict[tuple[str, str], list[Panel]] = {}
    for panel in chart.printed:
        kinds.setdefault((panel.x.title, panel.y.title), []).append(panel)
    made = []
    for turn, panels in enumerate(kinds.values(), 1):
        lines: dict[str, list[Series]] = {}
        for panel, colour in zip(panels, itertools.cycle(PALETTE), strict=False):
            for one in panel.series:
                if one.kind == "line" and not one.faint:
                    look = replace(one, mark=Mark(colour), name=panel.name, points=False)
                    lines.setdefault(one.name, []).append(look)
        axes = panels[0].x, panels[0].y
        own = tuple(Panel(name, name, *axes, tuple(found)) for name, found in lines.items())
        name = f"{chart.name}-{turn}" if turn > 1 else chart.name
        made.append(replace(chart, name=name, panels=own, columns=4, height=1.15))
    return made
