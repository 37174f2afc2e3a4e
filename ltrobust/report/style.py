"""The one look of all figures: sizes, fonts, and a palette fit for colour-blind readers.

Text has nine points whatever the width, so that figures are as readable as the paper around them.
Nothing here draws data.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ltrobust.errors import Notice, unknown
from ltrobust.report.names import MARKED

FONT = "DejaVu Sans"
WIDTH = 5.0
DPI = 150
# Okabe and Ito (2008), without the yellow that is too light for lines on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Dash = Literal["-", "--", ":", "-."] | tuple[float, tuple[float, ...]]

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Dash, ...] = (
    *("-", "--", ":", "-."),
    *((0, (8, 2)), (0, (8, 2, 1.5, 2)), (0, (4, 1.5, 1, 1.5, 1, 1.5))),
)
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++", "---")
BAR_COLOUR = "#D9D9D9"
CLEAN_COLOUR, ROBUST_COLOUR = PALETTE[0], PALETTE[1]

_SETTINGS: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    # names of methods and classes come from users and may hold dollar signs
    "text.parse_math": False,
}
_KEEP = ("backend", "backend_fallback", "interactive", "toolbar", "timezone")


@dataclass(frozen=True)
class Look:
    """What figures and LaTeX tables are made for.

    Attributes:
        style: slides have narrow figures of many pixels: text is large when they are enlarged.
        columns: of a two-column paper that figures and tables span; None: figures of five inches,
            which suit a screen, and tables of both columns.
    """

    style: Literal["paper", "slides"] = "paper"
    columns: Literal[1, 2] | None = None

    @property
    def width(self) -> float:
        """Inches of a figure."""
        slides = self.style == "slides" and self.columns == 2
        return WIDTH if self.columns is None or slides else {1: 3.25, 2: 6.9}[self.columns]

    @property
    def dpi(self) -> int:
        """Pixels of an inch of a PNG."""
        return 2 * DPI if self.style == "slides" or self.columns == 1 else DPI


DEFAULT_LOOK = Look()


def parse_look(style: str | None, columns: str | None) -> Look:
    """Read the words of the command line.

    Raises:
        UserError: one of them is unknown.
    """
    styles: dict[str, Literal["paper", "slides"]] = {"paper": "paper", "slides": "slides"}
    numbers: dict[str, Literal[1, 2]] = {"1": 1, "2": 2}
    if style is not None and style not in styles:
        raise unknown("--style", style, styles)
    if columns is not None and columns not in numbers:
        raise unknown("--columns", columns, numbers)
    return Look(styles[style or "paper"], None if columns is None else numbers[columns])


@dataclass(frozen=True)
class Mark:
    """How one method is drawn in every figure."""

    colour: str
    marker: str = MARKERS[0]
    dash: Dash = DASHES[0]
    hatch: str = HATCHES[0]


CLEAN_MARK = Mark(CLEAN_COLOUR)
ROBUST_MARK = Mark(ROBUST_COLOUR, MARKERS[1], hatch=HATCHES[1])


@contextmanager
def styled() -> Iterator[None]:
    """Apply the look for a while, whatever the user's own matplotlib settings are."""
    usual = mpl.rcParamsDefault.items()
    settings = {name: value for name, value in usual if name not in _KEEP and name[0] != "_"}
    with mpl.rc_context(settings | _SETTINGS), _glyphs_told():
        yield


_TOLD: set[str] = set()
"""Letters that the font lacks and that were told."""


@contextmanager
def _glyphs_told() -> Iterator[None]:
    """Say once, in words, which letters the font has not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph ")
        yield
    lacking: set[str] = set()
    for one in caught:
        glyph = re.match(r"Glyph (\d+) ", str(one.message))
        if glyph is None:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        else:
            lacking.add(chr(int(glyph[1])))
    if not lacking <= _TOLD:
        _TOLD.update(lacking)
        warnings.warn(
            f"figures lack the letters {''.join(sorted(lacking))}, which {FONT} has not; tables "
            "and the page have them",
            Notice,
            stacklevel=5,
        )


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Make a figure on its own Agg canvas, known to no global figure manager."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.06)
    return figure


def marks_for(labels: Iterable[str], methods: Mapping[str, str] | None = None) -> dict[str, Mark]:
    """Give each label its own mark; that of a shipped method (`MARKED`) is always the same.

    A variant of one, such as "trades (3f2a1b)" or "trades+awp", has its colour and another marker,
    dash and hatch, as long as there are any. All other labels share out what is left, in
    alphabetical order; up to 49 differ in colour or marker.

    Args:
        labels: names as in a group's rows.
        methods: label to registered method, where labels are other names.
    """
    names = {label: (methods or {}).get(label, label) for label in sorted(set(labels))}
    cells: dict[str, tuple[int, int]] = {}

    def give(label: str, places: Iterable[tuple[int, int]]) -> None:
        taken = set(cells.values())
        cell = next((cell for cell in places if cell not in taken), None)
        if cell is not None:
            cells[label] = cell

    for label, name in names.items():
        if name in MARKED:
            give(label, [_cell(MARKED.index(name))])
    for label, name in names.items():
        base = re.split(r" \(|\+", name)[0]
        if label not in cells and base in MARKED:
            colour, first = _cell(MARKED.index(base))
            give(label, ((colour, row) for row in range(first + 1, len(DASHES))))
    alike = len(PALETTE) * len(DASHES)  # from there on looks come again
    places = (*range(len(MARKED), alike), *range(len(MARKED)))
    for label in names:
        if label not in cells:
            give(label, map(_cell, itertools.chain(places, itertools.count(alike))))
    return {label: _mark(*cells[label]) for label in names}


def _cell(place: int) -> tuple[int, int]:
    """Column (colour) and row (marker, dash and hatch) of a place in the order of marks."""
    row, colour = divmod(place, len(PALETTE))
    return colour, row


def _mark(colour: int, row: int) -> Mark:
    """Colour with marker, dash or hatch are unique over 49 places, all together over 343."""
    turn = row % len(DASHES)
    marker = (colour + row + row // len(DASHES)) % len(MARKERS)
    return Mark(PALETTE[colour], MARKERS[marker], DASHES[turn], HATCHES[turn])


def short(text: str, limit: int = 24) -> str:
    """Cut the middle out of a name that would not fit on a figure."""
    head = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:head]}…{text[head + 1 - limit :]}"
