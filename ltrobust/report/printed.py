"""Draws charts for paper with matplotlib: one look, of any of its widths, all text apart.

It knows how a panel, a series and a heat map look, and no method, attack or table.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MplAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from ltrobust.report import chart as chart_module
from ltrobust.report import labels as labels_module
from ltrobust.report import style as style_module
from ltrobust.report.chart import (
    MANY,
    NAMED,
    Axis,
    Chart,
    Counts,
    Ends,
    Heat,
    Panel,
    Series,
    by_method,
)
from ltrobust.report.labels import (
    Point,
    apart,
    category_ticks,
    count_ticks,
    fit,
    freeze,
    label_points,
    legend_below,
    legend_height,
    text_width,
)
from ltrobust.report.style import (
    BAR_COLOUR,
    DEFAULT_LOOK,
    DPI,
    WIDTH,
    Look,
    new_figure,
    short,
    styled,
)

_HOLLOW = "////"
_GUIDE = "#B0B0B0"
_NOTE, _LINE = 0.15, 0.15
"""Inches of a line of the note above, and of one below."""
_GRID = 12
"""More panels than these are placed by hand: the usual layout takes minutes for them."""
_ROW = 0.135
"""Inches of a heat map's row."""
_SECOND = 0.1
"""Inches of a title's second line."""
_NUMBERED = 12
"""Up to so many columns a heat map has its numbers in its cells."""


def print_chart(chart: Chart, look: Look = DEFAULT_LOOK) -> dict[str, Figure]:
    """Draw a chart as wide as the look has it; lines of many methods as small multiples.

    Returns:
        File name part to figure: one, or one for each pair of axes of small multiples.
    """
    lines = {one.kind for panel in chart.printed for one in panel.series} - {"points"} == {"line"}
    classes = any(panel.counts or panel.heat for panel in chart.printed)
    if lines and not classes and len(chart.entries) > MANY:
        return {one.name: draw(one, look.width) for one in by_method(chart)}
    return {chart.name: draw(chart, look.width)}


def renderer_digest() -> str:
    """What a figure hangs on beside its description: this code and the library's version."""
    files = (__file__, *(str(m.__file__) for m in (chart_module, labels_module, style_module)))
    content = b"".join(Path(file).read_bytes() for file in files)
    return hashlib.sha256(content + mpl.__version__.encode()).hexdigest()[:16]


def figure_bytes(figure: Figure, kind: str, dpi: int = DPI) -> bytes:
    """Save a figure as "png" or "pdf", without dates, so that bytes can be compared."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    with styled():
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


@styled()
def draw(chart: Chart, width: float = WIDTH) -> Figure:
    """Draw the printed panels of a chart in a grid of `width` inches, legend below, note above."""
    panels = chart.printed
    columns = _fitting(chart, panels, width)
    named = _classes_named(panels, columns, width)
    if not named:
        chart = replace(chart, foot=(*chart.foot, *_key(panels[0].heat, width)))
    titles = [_title(panel, width / columns) for panel in panels]
    mosaic = _mosaic(panels, columns)
    rows = len(mosaic)
    names = [series.entry for series in chart.entries]
    counts = next((panel.counts for panel in panels if panel.counts and panel.counts.log), None)
    names += ["training images (right)"] if counts else []
    below = legend_height(names, chart.cut, width)
    head, foot = _NOTE * len(chart.head.splitlines()), _LINE * len(chart.foot)
    height = sum(_heights(panels, columns, rows, chart.height, width)) + below + head + foot
    one_line = not any("\n" in title for title in titles)
    height += 0.0 if one_line else rows * _SECOND
    figure = new_figure(height + _names_height(panels) + 0.2, width)
    small = chart.columns > 3 and panels[0].heat is None  # small multiples, however many a row
    outer = len(panels) > 1 and (small or all(panel.counts or panel.heat for panel in panels))
    if small:
        figure.supylabel(fit(panels[0].y.title, height - below, 9), fontsize=9)
        low = (below + 0.05) / figure.get_figheight()
        figure.supxlabel(panels[0].x.title, fontsize=9, y=low, va="bottom")
    axes = _grid(figure, chart, panels, mosaic, below + foot, one_line, named)
    for place, (one, panel) in enumerate(zip(axes, panels, strict=True)):
        left = not outer or place % columns == 0
        bottom = not outer or place + columns >= len(panels)
        last = place // columns == rows - 1
        room = width / columns - 0.5, chart.height - 0.3
        _panel(one, panel, room, left, bottom, place % columns == columns - 1, named)
        if small or (place % columns and panel.y.title == panels[place - 1].y.title):
            one.set_ylabel("")
        if small:
            one.set_xlabel("")
        # names above an unused panel hang into it and need no room of their own
        one.xaxis.set_in_layout(last or not outer)
        size = _title_size(width / columns) - 2 * ("\n" in titles[place])
        one.set_title(titles[place], pad=3, fontsize=size, linespacing=1)
    heats = [panel.heat for panel in panels if panel.heat]
    if heats:
        _colour_bar(figure, axes, heats[0], foot)
    _frame(figure, chart, names)
    if any(panel.named for panel in panels):
        freeze(figure)
        for one, panel in zip(axes, panels, strict=True):
            if panel.named:
                label_points(one, _points(panel), size=8 if len(panel.series) <= MANY else 7)
    return figure


def _fitting(chart: Chart, panels: Sequence[Panel], width: float) -> int:
    """Columns of the grid: fewer than the chart has where panels would be too narrow."""
    named = any(panel.named for panel in panels)
    least = 2.3 if named else 1.5 if chart.columns <= 3 and panels[0].heat is None else 1.0
    return min(chart.columns, len(panels), max(1, int(width / least)))


def _heights(
    panels: Sequence[Panel], columns: int, rows: int, height: float, width: float
) -> list[float]:
    """Inches of each row of panels."""
    heat = panels[0].heat
    if heat is None:
        return [height] * rows
    if heat.square:
        side = (width - 0.4 - _names_height(panels)) / columns
        return [side + 0.2] * rows + [0.6]
    return [_ROW * len(heat.rows) + 0.25] * rows + [0.5]


def _names_height(panels: Sequence[Panel]) -> float:
    """Inches of upright names below the last row."""
    counts, heat = panels[-1].counts, panels[-1].heat
    names = counts.names if counts else heat.columns if heat else ()
    if not names or len(names) > 20:
        return 0.2 if names else 0.0
    return 0.065 * max(len(short(name, 14)) for name in names)


def _mosaic(panels: Sequence[Panel], columns: int) -> list[list[str]]:
    """Rows of the grid by the numbers of the panels that stand there, "." for none."""
    flat: list[str] = []
    for number, panel in enumerate(panels):
        flat += ["."] * (-len(flat) % columns if panel.wide else 0)
        flat += [f"{number}"] * (columns if panel.wide else 1)
    flat += ["."] * (-len(flat) % columns)
    return [flat[start : start + columns] for start in range(0, len(flat), columns)]


def _grid(
    figure: Figure,
    chart: Chart,
    panels: Sequence[Panel],
    mosaic: list[list[str]],
    below: float,
    one_line: bool,
    named: bool,
) -> list[Axes]:
    """Axes of all panels."""
    heats = [panel.heat for panel in panels if panel.heat]
    many = len(panels) > _GRID or (len(mosaic[0]) > 3 and not heats)
    alike = many or len({(panel.x, panel.y) for panel in panels}) == 1
    rows = all(heat.square for heat in heats)
    found: dict[Any, Axes] = figure.subplot_mosaic(mosaic, sharex=alike, sharey=alike and rows)  # type: ignore[arg-type]
    if many:
        figure.set_layout_engine(None)
        wide, high = figure.get_size_inches()
        names = heats[0].rows if heats and heats[0].square and named else ()
        left = 0.15 + max((text_width(short(name, 14), 7) for name in names), default=0.4)
        head = _NOTE * len(chart.head.splitlines())
        bottom = (below + 0.42 + _names_height(panels) + (0.35 if heats else 0.0)) / high
        figure.subplots_adjust(
            left=left / wide, right=1 - 0.12 / wide, bottom=bottom, top=1 - (0.24 + head) / high,
            wspace=0.12, hspace=0.34 if not heats else 0.25 if one_line else 0.4,
        )  # fmt: skip
    return [found[f"{number}"] for number in range(len(panels))]


def _title(panel: Panel, across: float) -> str:
    """A panel's title, over a heat map in two lines where it is too long for one."""
    size = _title_size(across)
    room, text = across - (0.6 if size > 8 else 0.3), panel.title
    if panel.wide or text_width(text, size) <= room or panel.heat is None:
        return text if panel.wide else fit(text, room, size)
    broken = [f"{text[:n]}+\n{text[n + 1 :]}" for n, sign in enumerate(text) if sign == "+"]
    wide = {
        lines: max(text_width(line, size - 2) for line in lines.split("\n")) for lines in broken
    }
    best = min(wide, key=wide.__getitem__, default="")
    return best if best and wide[best] <= room else fit(text, room, size)


def _title_size(across: float) -> int:
    """Points of the title of a panel that is so many inches wide."""
    return 9 if across > 1.7 else 8


def _panel(
    axes: Axes,
    panel: Panel,
    room: tuple[float, float],
    left: bool,
    bottom: bool,
    right: bool,
    named: bool,
) -> None:
    """Draw one panel of about `room` inches; tick labels only where they are wanted."""
    if panel.heat is not None:
        _heat(axes, panel.heat, named)
    if panel.counts is not None:
        _counts(axes, panel.counts, right)
    if panel.named:
        axes.grid(visible=True, axis="both")
    if panel.guides:
        axes.axhline(0, color=_GUIDE, linewidth=0.7)
        axes.axvline(0, color=_GUIDE, linewidth=0.7)
        axes.axline((0, 0), slope=1, color=_GUIDE, linewidth=0.8, linestyle=":")
    for series in panel.series:
        _series(axes, series)
    if panel.heat is None:
        _axis(axes, panel, room[0])
        up, across = (axis.brief or axis.title for axis in (panel.y, panel.x))
        titled = panel.wide or panel.y.title == panel.title
        if left and not titled:
            axes.set_ylabel(fit(up, room[1], 9))
        if bottom:
            axes.set_xlabel(fit(across, room[0] + 0.4, 9))
    marked = bottom and not (panel.x.names and panel.counts is None)
    axes.tick_params(axis="x", length=2 if marked else 0, labelbottom=bottom)
    axes.tick_params(axis="y", length=2 if left else 0, labelleft=left)


def _axis(axes: Axes, panel: Panel, room: float) -> None:
    x, y = panel.x, panel.y
    if panel.named:
        axes.margins(0.18)
        # an automatic number of ticks would follow the layout, and the layout the ticks
        axes.locator_params(nbins=7 if panel.guides else 5)
        return
    if y.span is not None:
        axes.set_ylim(*y.span)
    if y.ticks:
        axes.set_yticks([place for place, _ in y.ticks], [text for _, text in y.ticks])
    else:
        axes.locator_params(axis="y", nbins=6 if room > 1 else 3)
    if x.names:
        texts = [text for _, text in x.ticks]
        category_ticks(axes, texts, room)
        axes.set_xlim(-0.6, len(texts) - 0.4)
    elif panel.counts is not None:
        axes.set_xticks([place for place, _ in x.ticks], [text for _, text in x.ticks])
        axes.set_xlim(-0.6, len(panel.counts.names) - 0.4)
    elif x.ticks:
        _across(axes, x, room)
    elif not any(series.x for series in panel.series):
        axes.set_xticks([])
    else:
        axes.locator_params(axis="x", nbins=5 if room > 1 else 3, integer=x.whole)


def _across(axes: Axes, axis: Axis, room: float) -> None:
    """Set scale, margins and as many of the ticks as fit into `room` inches."""
    places, texts = zip(*axis.ticks, strict=True)
    scaled = [math.log10(x) for x in places] if axis.log else list(places)
    margin = 0.05 * (scaled[-1] - scaled[0]) or 0.1
    low, high = axis.span or (scaled[0] - margin, scaled[-1] + margin)
    if axis.log:
        axes.set_xscale("log")
        axes.set_xlim(10**low, 10**high)
    else:
        axes.set_xlim(low, high)
    kept = apart([(x - low) / (high - low) for x in scaled], texts, room)
    axes.set_xticks([places[place] for place in kept], [texts[place] for place in kept])
    axes.xaxis.set_minor_locator(NullLocator())


def _series(axes: Axes, series: Series) -> None:
    mark, y = series.mark, np.array(series.y, dtype=float)
    if series.kind == "bars":
        axes.bar(
            series.x,
            y,
            series.width,
            yerr=_lengths(series.y, series.y_ends),
            error_kw={"elinewidth": 0.8, "capsize": min(2.0, 18 * series.width)},
            **_bar_look(series),
        )
        for x, sign in zip(series.x, series.signs, strict=False):
            if sign:
                axes.text(x, 0, sign, ha="center", va="bottom", color="white")
        return
    if series.band:
        dot = mark.marker if np.isfinite(y).sum() == 1 else None
        look: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.4} if series.faint else {"marker": dot}
        axes.plot(series.x, y, color=mark.colour, linestyle=mark.dash, **look)
        if series.y_ends:
            low, high = zip(*series.y_ends, strict=True)
            axes.fill_between(series.x, low, high, color=mark.colour, alpha=0.15, linewidth=0)
        return
    named = series.kind == "points"
    many = len(series.x) > 20
    axes.errorbar(
        series.x,
        y,
        yerr=_lengths(series.y, series.y_ends),
        xerr=_lengths(series.x, series.x_ends),
        color=mark.colour,
        linestyle="" if named else mark.dash,
        linewidth=0.9 if many else None,
        marker="x" if series.cross else mark.marker if series.points else None,
        markersize=5 if named else 3.5,
        markerfacecolor="white" if series.hollow else None,
        markeredgecolor=mark.colour,
        elinewidth=0.7,
        capsize=0 if named else 1.5,
    )


def _bar_look(series: Series) -> dict[str, Any]:
    colour = series.mark.colour
    if series.hollow:
        return {"facecolor": "white", "edgecolor": colour, "hatch": _HOLLOW, "linewidth": 0.7}
    hatch = series.mark.hatch
    return {"facecolor": colour, "edgecolor": "white", "hatch": hatch, "linewidth": 0}


def _lengths(values: Sequence[float], ends: Sequence[Ends]) -> np.ndarray | None:
    """Error bars below and above, (2, points); 0 where there is none, None without any."""
    if not ends:
        return None
    low, high = np.array(ends, dtype=float).T
    middle = np.array(values, dtype=float)
    return np.nan_to_num(np.stack([middle - low, high - middle])).clip(min=0)


def _counts(axes: Axes, counts: Counts, right: bool) -> None:
    """Bars of training images behind everything."""
    if not counts.log:
        axes.bar(range(len(counts.values)), counts.values, 0.86, color=BAR_COLOUR, zorder=0)
        return
    values = np.array(counts.values).clip(min=1)
    low, high = values.min() / 2, values.max() * 1.5
    behind = axes.twinx()
    if len(values) <= 20:
        behind.bar(range(len(values)), values - low, 0.86, bottom=low, color=BAR_COLOUR)
    else:
        edges = np.arange(len(values) + 1) - 0.5
        behind.stairs(values, edges, baseline=low, fill=True, color=BAR_COLOUR, linewidth=0)
    behind.set_yscale("log")
    behind.set_ylim(low, high)
    behind.grid(visible=False)
    behind.minorticks_off()
    ticks = count_ticks(low, high) if right else []
    behind.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    behind.spines[:].set_visible(False)
    behind.tick_params(axis="y", length=0, colors="#707070")
    # the series belong over the bars, although the bars' axes were made later
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)


def _classes_named(panels: Sequence[Panel], columns: int, width: float) -> bool:
    """Whether the squares of a grid have room for the names of their classes beside them."""
    heat = panels[0].heat
    if heat is None or not heat.square:
        return True
    side = (width - 0.4 - _names_height(panels)) / columns
    return 0.11 * len(heat.rows) <= side and width / columns > 1.1


def _key(heat: Heat | None, width: float) -> list[str]:
    """Which class has which number, in lines; none where there are too many."""
    if heat is None or len(heat.rows) > NAMED:
        return []
    lines = ["classes:"]
    for number, name in enumerate(heat.rows, 1):
        text = f"{number} {short(name, 14)}{',' * (number < len(heat.rows))}"
        if text_width(f"{lines[-1]} {text}", 8) > width - 0.4:
            lines.append(text)
        else:
            lines[-1] += f" {text}"
    return lines


def _heat(axes: Axes, heat: Heat, named: bool) -> None:
    low, high = heat.span
    image = axes.imshow(
        np.array(heat.values, dtype=float),
        vmin=low,
        vmax=high,
        cmap="Blues",
        aspect="equal" if heat.square else "auto",
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if heat.square:
        for axis, names in ((axes.xaxis, heat.columns), (axes.yaxis, heat.rows)):
            _sparse(axis, names, named)
        axes.tick_params(axis="x", rotation=90 if named else 0)
        return
    axes.set_yticks(range(len(heat.rows)), [fit(name, 1.4, 7) for name in heat.rows], fontsize=7)
    room = (axes.figure.bbox.width / DPI - 1.6) / max(len(heat.columns), 1)
    columns = [short(name, 14) for name in heat.columns]
    if room < 0.11:
        _sparse(axes.xaxis, columns, False)
    else:
        crowded = max(text_width(name, 7) for name in columns) + 0.06 > room
        axes.set_xticks(range(len(columns)), columns, rotation=90 if crowded else 0, fontsize=7)
    if len(heat.columns) <= _NUMBERED:
        _numbers(axes, heat, image.norm)


def _sparse(axis: MplAxis, names: Sequence[str], named: bool) -> None:
    """Name all places of an axis, or give a few their rank."""
    places = range(0, len(names), 1 if named else math.ceil(len(names) / 5))
    texts = [short(names[p], 14) for p in places] if named else [str(p + 1) for p in places]
    axis.set_ticks(places, texts, fontsize=7)


def _numbers(axes: Axes, heat: Heat, norm: Any) -> None:
    for row, values in enumerate(heat.values):
        for column, value in enumerate(values):
            sign = heat.signs[row][column] if heat.signs else ""
            text = "" if math.isnan(value) else f"{value:.1f}{sign}"
            colour = "white" if float(norm(value)) > 0.6 else "#303030"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)


def _colour_bar(figure: Figure, axes: Sequence[Axes], heat: Heat, foot: float) -> None:
    where: dict[str, Any] = {"ax": list(axes), "shrink": 0.6, "aspect": 40, "pad": 0.02}
    if figure.get_layout_engine() is None:
        high = figure.get_size_inches()[1]
        where = {"cax": figure.add_axes((0.2, (0.42 + foot) / high, 0.6, 0.08 / high))}
    bar = figure.colorbar(axes[0].images[0], orientation="horizontal", **where)
    bar.set_label(fit(heat.unit, figure.get_figwidth() - 0.4, 8), fontsize=8)
    bar.outline.set_visible(False)


def _frame(figure: Figure, chart: Chart, names: Sequence[str]) -> None:
    """Legend and lines below, note above."""
    handles = [_handle(one) for one in chart.entries]
    handles += [Patch(facecolor=BAR_COLOUR)] * (len(names) - len(handles))
    legend_below(figure, handles, names, chart.cut, _LINE * len(chart.foot))
    if chart.foot:
        text = "\n".join(fit(line, figure.get_figwidth() - 0.3, 8) for line in chart.foot)
        low = 0.05 / figure.get_figheight()
        where = {} if figure.get_layout_engine() else {"y": low, "va": "bottom"}
        figure.supxlabel(text, fontsize=8, color="#404040", **where)
    if chart.head:
        figure.suptitle(chart.head, fontsize=7, color="#606060")


def _handle(series: Series) -> Line2D | Patch:
    mark = series.mark
    if series.kind == "bars":
        return Patch(**_bar_look(series))
    points = series.kind == "points"
    shows = points or (series.points and not series.band)
    return Line2D(
        [],
        [],
        color=mark.colour,
        linestyle="" if points else mark.dash,
        marker="x" if series.cross else mark.marker if shows else None,
        markerfacecolor="white" if series.hollow else None,
        markersize=3.5,
    )


def _points(panel: Panel) -> list[Point]:
    """The points of a panel with the reach of their intervals; names where they are wanted."""
    found = []
    best = MANY if len(panel.series) > NAMED else len(panel.series)
    for place, series in enumerate(panel.series):
        name = series.name if place < best or series.legend == "" else ""
        reach = [_lengths(series.x, series.x_ends), _lengths(series.y, series.y_ends)]
        half = [0.0 if one is None else float(one.max()) for one in reach]
        found += [
            Point(name, x, y, half[0], half[1])
            for x, y in zip(series.x, series.y, strict=True)
            if math.isfinite(x + y)
        ]
    return found
