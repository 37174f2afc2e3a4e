"""Turns metric frames into a report: leaderboard, tables and figures, all in memory.

It takes data frames and returns text and bytes under relative file names; reading and writing files
is the caller's part, and nothing here knows of models or training. The package is also the function
`ltrobust.report`, see `callable_package`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table as RichTable

from ltrobust.callable_package import CallablePackage
from ltrobust.report.board import Board, make_board
from ltrobust.report.charts import setting_charts, spanning_charts
from ltrobust.report.images import adversarial_figures, examples_digest
from ltrobust.report.markup import Table
from ltrobust.report.printed import figure_bytes, print_chart, renderer_digest
from ltrobust.report.ranking import class_attacks
from ltrobust.report.setting import Setting
from ltrobust.report.tables import (
    balanced_table,
    cost_table,
    group_table,
    per_class_table,
    ratio_table,
    setting_tables,
)

sys.modules[__name__].__class__ = CallablePackage

__all__ = [
    "Rendered",
    "figure_bytes",
    "leaderboard",
    "render",
    "render_board",
    "terminal_tables",
]

_TERMINAL_CLASSES = 20
_TERMINAL_ATTACKS = 3
_KINDS = ("png", "pdf")


@dataclass(frozen=True)
class Rendered:
    """The files of a report but its page.

    Attributes:
        files: relative name to content.
        drawn: name of every figure to a digest of what it was drawn from; those that are not
            among `files` are drawn already.
    """

    files: dict[str, str | bytes] = field(default_factory=dict)
    drawn: dict[str, str] = field(default_factory=dict)


def render_board(board: Board, known: Mapping[str, str] | None = None) -> Rendered:
    """Make every file of a report but its page.

    Args:
        board: what it shows.
        known: figures that are there already, by name, with the digest that `Rendered.drawn` gave.

    Returns:
        `leaderboard.csv`, `tables/<name>.md|tex|csv`, `figures/<name>.png|pdf`. With several
        settings the names of all but the main one (`main_group`) end in their slug, and what spans
        settings in that of its family. Equal input gives equal bytes.
    """
    made = Rendered()
    made.files["leaderboard.csv"] = board.leaderboard.to_csv(index=False, lineterminator="\n")
    for setting in board.settings:
        for table in setting_tables(setting):
            made.files.update(_table_files(table, setting.ending))
    for family in board.families:
        made.files.update(_table_files(ratio_table(family), family.ending))
    _draw_all(board, made, known or {})
    return made


def render(
    metrics: pd.DataFrame,
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    comparisons: pd.DataFrame | None = None,
    confusion: pd.DataFrame | None = None,
    examples: Mapping[str, pd.DataFrame] | None = None,
    across: Sequence[str] = (),
) -> dict[str, str | bytes]:
    """Make every file of the report of these tables but its page; see `make_board`."""
    tables = (metrics, per_class, histories, comparisons, confusion, examples, across)
    return render_board(make_board(*tables)).files


def leaderboard(
    metrics: pd.DataFrame, across: Sequence[str] = (), comparisons: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The leaderboard of these metrics; see `leaderboard_frame` for its columns."""
    return make_board(metrics, comparisons=comparisons, across=across).leaderboard


def terminal_tables(board: Board) -> list[RichTable]:
    """Tables for the command line: balanced, by class frequency, by class up to 20 classes, cost,
    and by imbalance ratio.

    A balanced table of many attacks comes in parts that fit 80 columns for one seed.
    """
    tables: list[Table | None] = []
    for setting in board.settings:
        for start in range(0, len(setting.attacks), _TERMINAL_ATTACKS):
            part = setting.attacks[start : start + _TERMINAL_ATTACKS]
            tables.append(balanced_table(setting, part))
        tables.append(group_table(setting))
        if 0 < len(setting.classes.facts) <= _TERMINAL_CLASSES:
            tables.append(per_class_table(setting))
        tables.append(cost_table(setting, class_attacks(setting.attacks)))
    tables += [ratio_table(family) for family in board.families]
    return [table.to_rich() for table in tables if table is not None]


def _table_files(table: Table, ending: str) -> dict[str, str | bytes]:
    name = f"tables/{table.name}{ending}"
    return {
        f"{name}.md": table.to_markdown(),
        f"{name}.tex": table.to_latex(),
        f"{name}.csv": table.to_csv(),
    }


Drawing = Callable[[], Mapping[str, Figure]]


def _drawings(board: Board) -> dict[tuple[str, str], tuple[str, Drawing]]:
    """Every figure by name and ending: a digest of its description, and how it is drawn."""
    code = renderer_digest()
    charts = [(one.ending, chart) for one in board.settings for chart in setting_charts(one)]
    spanning = spanning_charts(board.radii, board.families)
    charts += [(ending, chart) for _, ending, chart in spanning]
    found: dict[tuple[str, str], tuple[str, Drawing]] = {}
    for ending, chart in charts:
        if chart.printed:
            digest = hashlib.sha256(f"{code}{chart!r}".encode()).hexdigest()[:16]
            found[chart.name, ending] = digest, partial(print_chart, chart)
    for one in board.settings:
        if len(one.examples):
            digest = hashlib.sha256(f"{code}{examples_digest(one)}".encode()).hexdigest()[:16]
            found["adversarial", one.ending] = digest, partial(_images, one)
    return {
        place: (f"{place[0]}{place[1]} {digest}", drawing)
        for place, (digest, drawing) in found.items()
    }


def _draw_all(board: Board, made: Rendered, known: Mapping[str, str]) -> None:
    """Draw every figure but those that are there already, drawn from the same."""
    there: dict[str, list[str]] = {}
    for file, digest in known.items():
        there.setdefault(digest, []).append(file)
    for (_, ending), (digest, drawing) in _drawings(board).items():
        if digest in there:
            made.drawn.update(dict.fromkeys(there[digest], digest))
            continue
        for name, figure in drawing().items():
            for kind in _KINDS:
                file = f"figures/{name}{ending}.{kind}"
                made.files[file] = figure_bytes(figure, kind)
                made.drawn[file] = digest


def _images(setting: Setting) -> dict[str, Figure]:
    return {
        "adversarial" if page == 1 else f"adversarial-{page}": figure
        for page, figure in enumerate(adversarial_figures(setting), 1)
    }
