"""Keeps text on figures apart: direct labels beside points, ticks, legends that fit.

Only geometry lives here; what the text says is decided by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox

from ltrobust.report.style import DPI, FONT, short

_GAP = 2.0
_NEAR = 10.0
_HANDLE = 0.46


@dataclass(frozen=True)
class Point:
    """A named point in data coordinates with the half lengths of its error bars."""

    name: str
    x: float
    y: float
    xerr: float = 0.0
    yerr: float = 0.0


def label_points(axes: Axes, points: Sequence[Point], size: float = 8) -> None:
    """Write each name beside its point so that no two names, markers or error bars overlap.

    Names far from their point get a thin line to it. A point with the name "" is only kept free.

    Args:
        axes: the axes, limits set and layout final (see `freeze`): labels are placed in pixels.
        points: what to label.
        size: font size in points.
    """
    room = axes.get_window_extent()
    taken = [box for point in points for box in _footprint(axes, point)]
    names: list[Bbox] = []
    lines: list[Bbox] = []
    for point in points:
        if not point.name:
            continue
        x, y = axes.transData.transform((point.x, point.y))
        extent = _text_size(axes, short(point.name), size)
        place = _free_place((x, y), extent, taken, names, lines, room)
        names.append(place)
        lines += _line_boxes(x, y, place)
        _write(axes, point, (x, y), size, place)


def freeze(figure: Figure) -> None:
    """Finish the layout: labels are placed inside finished axes and must not move them."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def category_ticks(axes: Axes, names: Sequence[str], room: float) -> None:
    """Name the places 0, 1, ... of an axis of `room` inches; upright where they would touch."""
    texts = [short(name, 16) for name in names]
    slot = room / max(len(texts), 1)
    crowded = max((text_width(text, 8) for text in texts), default=0.0) + 0.08 > slot
    axes.set_xticks(range(len(texts)), texts)
    size = min(8.0, 72 * slot / 1.08) if crowded else 8.0  # upright, a line's height must fit
    axes.tick_params(axis="x", length=0, rotation=90 if crowded else 0, labelsize=size)


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of a line of text of `size` points, as it is drawn."""
    properties = FontProperties(FONT, weight=weight, size=size)
    return float(_ruler().get_text_width_height_descent(text, properties, False)[0]) / DPI


@cache
def _ruler() -> RendererAgg:
    return RendererAgg(1, 1, DPI)


def fit(text: str, room: float, size: float, weight: str = "normal") -> str:
    """Cut the middle out of a name until it is no wider than `room` inches."""
    # no name is so narrow that more characters could stand
    limit = min(len(text), max(4, int(room * 72 / size * 5)))
    while limit > 3 and text_width(short(text, limit), size, weight) > room:
        limit -= 1
    return short(text, limit)


def apart(places: Sequence[float], texts: Sequence[str], room: float) -> list[int]:
    """Which tick labels can stand without touching, the first one always among them.

    Args:
        places: where on the axis each tick lies, as a share of its length, increasing.
        texts: the labels, horizontal.
        room: length of the axis in inches.
    """
    kept: list[int] = []
    for number, (place, text) in enumerate(zip(places, texts, strict=True)):
        if kept:
            last = kept[-1]
            needed = (text_width(text, 8) + text_width(texts[last], 8)) / 2 + 0.08
            if (place - places[last]) * room < needed:
                continue
        kept.append(number)
    return kept


def count_ticks(low: float, high: float) -> list[int]:
    """Two to four round numbers (1, 2, 5 times a power of ten) for a logarithmic count axis."""
    exponents = range(max(0, math.floor(math.log10(low))), math.ceil(math.log10(high)) + 1)
    fine = [round(m * 10.0**e) for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    coarse = [tick for tick in fine if math.log10(tick).is_integer()]
    if len(coarse) > 4:
        return coarse[:: math.ceil(len(coarse) / 4)]
    if len(coarse) > 2 or not fine:
        return coarse
    return fine if len(fine) <= 4 else fine[:: math.ceil(len(fine) / 4)]


def legend_below(
    figure: Figure, handles: Sequence[Artist], names: Sequence[str], limit: int, foot: float = 0.0
) -> None:
    """Put one legend under the whole figure, in as many columns as fit its width.

    Args:
        limit: most characters of a name.
        foot: inches of what stands below it.
    """
    if names:
        texts = [short(name, limit) for name in names]
        how = {
            "handlelength": 2.2,
            "columnspacing": 1.2,
            "ncols": _columns(texts, figure.get_figwidth()),
            "borderaxespad": rcParams["legend.borderaxespad"]
            + 72 * foot / rcParams["legend.fontsize"],
        }
        if foot and isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
            low = foot / figure.get_figheight()  # a layout makes room for the legend alone
            engine.set(rect=(0, low, 1, 1 - low))
        figure.legend(handles, texts, loc="outside lower center", **how)


def legend_height(names: Sequence[str], limit: int, width: float) -> float:
    """Height in inches that `legend_below` will take in a figure of this width."""
    texts = [short(name, limit) for name in names]
    return 0.17 * math.ceil(len(texts) / _columns(texts, width)) + 0.1 if texts else 0.0


def _columns(names: Sequence[str], width: float) -> int:
    """Number of legend columns that fit into the width of a figure."""
    widths = [text_width(name, 8) + _HANDLE for name in names]
    room = width - 0.2
    return len(names) if sum(widths) <= room else max(1, int(room / max(widths)))


def _footprint(axes: Axes, point: Point) -> list[Bbox]:
    """Boxes in pixels of a point's marker and error bars."""
    x, y = axes.transData.transform((point.x, point.y))
    right, top = axes.transData.transform((point.x + point.xerr, point.y + point.yerr))
    across, up = max(right - x, 5), max(top - y, 5)
    return [
        Bbox.from_extents(x - across, y - 5, x + across, y + 5),
        Bbox.from_extents(x - 5, y - up, x + 5, y + up),
    ]


def _text_size(axes: Axes, name: str, size: float) -> tuple[float, float]:
    note = axes.annotate(name, (0, 0), xycoords="axes fraction", fontsize=size)
    box = note.get_window_extent()
    note.remove()
    return box.width, box.height


def _write(axes: Axes, point: Point, pixel: tuple[float, float], size: float, place: Bbox) -> None:
    scale = 72 / axes.figure.dpi
    end = _nearest(*pixel, place)
    arrow = {
        "arrowstyle": "-",
        "lw": 0.5,
        "color": "#808080",
        "shrinkA": 0,
        "shrinkB": 2,
        # from where the name is nearest, as was reckoned, not from its middle
        "relpos": ((end[0] - place.x0) / place.width, (end[1] - place.y0) / place.height),
    }
    axes.annotate(
        short(point.name),
        (point.x, point.y),
        xytext=((place.x0 - pixel[0]) * scale, (place.y0 - pixel[1]) * scale),
        textcoords="offset points",
        fontsize=size,
        va="bottom",
        arrowprops=arrow if _line_boxes(*pixel, place) else None,
    )


def _nearest(x: float, y: float, place: Bbox) -> tuple[float, float]:
    """The point of a box that is nearest."""
    return float(np.clip(x, place.x0, place.x1)), float(np.clip(y, place.y0, place.y1))


def _line_boxes(x: float, y: float, place: Bbox) -> list[Bbox]:
    """Small boxes along the line that joins a point to a far label; none for a near one."""
    end_x, end_y = _nearest(x, y, place)
    length = math.hypot(end_x - x, end_y - y)
    if length <= _NEAR + 6:
        return []
    steps = np.arange(_NEAR, length - 1, 3.0) / length
    return [Bbox.from_bounds(x + t * (end_x - x) - 1, y + t * (end_y - y) - 1, 2, 2) for t in steps]


def _free_place(
    pixel: tuple[float, float],
    size: tuple[float, float],
    taken: Sequence[Bbox],
    names: Sequence[Bbox],
    lines: Sequence[Bbox],
    room: Bbox,
) -> Bbox:
    """First box near `pixel` that lies in `room` and touches nothing taken and no name.

    Places whose joining line crosses nothing either are preferred, then those where it crosses no
    name.
    """
    spare: dict[bool, Bbox] = {}
    leftmost, rightmost = room.x0 + _GAP, room.x1 - _GAP - size[0]
    for left, bottom in _candidates(*pixel, *size):
        box = Bbox.from_bounds(max(leftmost, min(left, rightmost)), bottom, *size)
        around = box.padded(_GAP)
        if not _inside(box, room) or around.count_overlaps([*taken, *names]):
            continue
        line = _line_boxes(*pixel, box)
        apart = not any(part.count_overlaps(names) for part in line)
        apart = apart and not around.count_overlaps(lines)
        if apart and not any(part.count_overlaps(taken) for part in line):
            return box
        spare.setdefault(apart, box)
    return spare.get(True, spare.get(False, Bbox.from_bounds(room.x0, room.y0, *size)))


def _inside(box: Bbox, room: Bbox) -> bool:
    corners = (box.x0 - _GAP, box.y0 - _GAP), (box.x1 + _GAP, box.y1 + _GAP)
    return all(room.contains(x, y) for x, y in corners)


def _candidates(x: float, y: float, width: float, height: float) -> Iterator[tuple[float, float]]:
    """Lower left corners: right, left, above, below, then rings of growing radius."""
    near = _NEAR
    yield x + near, y - height / 2
    yield x - near - width, y - height / 2
    yield x - width / 2, y + near
    yield x - width / 2, y - near - height
    for ring in range(1, 40):
        for turn in range(24):
            angle = 2 * math.pi * turn / 24
            radius = near + 8.0 * ring
            across = radius * math.cos(angle)
            left = x + across - (0 if across >= 0 else width)
            yield left, y + radius * math.sin(angle) - height / 2
