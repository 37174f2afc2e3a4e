"""The one look of all figures: sizes, fonts, and a palette fit for colour-blind readers.

Figures are five inches wide with nine-point text, so that they stay readable when a paper prints
them in one column. Nothing here draws data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

FONT = "DejaVu Sans"
WIDTH = 5.0
DPI = 150
# Okabe and Ito (2008), without the yellow that is too light for lines on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Dash = Literal["-", "--", ":", "-."]

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
HATCHES = ("", "///", "...", "xxx")
PERCENT = 100.0
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
class Mark:
    """How one method is drawn in every figure."""

    colour: str
    marker: str
    dash: Dash
    hatch: str


def styled() -> AbstractContextManager[None]:
    """Apply the look for a while, whatever the user's own matplotlib settings are."""
    settings: dict[Any, Any] = {
        name: value
        for name, value in mpl.rcParamsDefault.items()
        if name not in _KEEP and not name.startswith("_")
    }
    return mpl.rc_context({**settings, **_SETTINGS})


def in_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the shared look."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with styled():
            return draw(*args, **kwargs)

    return wrapper


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Make a figure on its own Agg canvas, known to no global figure manager."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.06)
    return figure


def empty_figure(reason: str) -> Figure:
    """Make a figure that says why there is nothing to draw."""
    figure = new_figure(1.0)
    figure.text(0.5, 0.5, reason, ha="center", va="center", color="#606060")
    return figure


def marks_for(labels: Iterable[str]) -> dict[str, Mark]:
    """Give each label its own mark, the same in every figure with the same labels."""
    return {
        label: Mark(
            PALETTE[place % len(PALETTE)],
            MARKERS[(place + place // len(PALETTE)) % len(MARKERS)],
            DASHES[place // len(PALETTE) % len(DASHES)],
            HATCHES[place // len(PALETTE) % len(HATCHES)],
        )
        for place, label in enumerate(sorted(set(labels)))
    }


def short(text: str, limit: int = 24) -> str:
    """Cut the middle out of a name that would not fit on a figure."""
    head = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:head]}…{text[head + 1 - limit :]}"
