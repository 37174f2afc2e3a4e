"""Turns metric frames into a report: leaderboard, tables and figures, all in memory.

It takes data frames and returns text and bytes under relative file names; reading and writing files
is the caller's part, and nothing here knows of models or training. The package is also the function
`ltrobust.report`, see `callable_package`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from matplotlib.figure import Figure
from rich.table import Table as RichTable

from ltrobust.callable_package import CallablePackage
from ltrobust.report.board import Board
from ltrobust.report.cards import cited_methods, references
from ltrobust.report.charts import setting_charts, spanning_charts
from ltrobust.report.groups import Group
from ltrobust.report.images import adversarial_figures, examples_digest
from ltrobust.report.markup import Table
from ltrobust.report.names import field_names
from ltrobust.report.printed import figure_bytes, print_chart, renderer_digest
from ltrobust.report.ranking import class_attacks
from ltrobust.report.style import DEFAULT_LOOK, Look
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
    "render_board",
    "terminal_tables",
]

_TERMINAL_CLASSES = 20
_KINDS = ("png", "pdf")
_CITING = ("leaderboard", "balanced")
"""Tables whose methods have their references."""


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


def render_board(board: Board, known: Mapping[str, str], look: Look = DEFAULT_LOOK) -> Rendered:
    """Make every file of a report but its page.

    Args:
        board: what it shows.
        known: figures that are there already, by name, with the digest that `Rendered.drawn` gave.
        look: for a paper or slides, and how wide.

    Returns:
        `leaderboard.csv`, `tables/<name>.md|tex|csv`, `tables/references.bib`,
        `figures/<name>.png|pdf`. With several settings the names of all but the main one
        (`main_group`) end in their slug, and what spans settings in that of its family. Equal input
        gives equal bytes.
    """
    made = Rendered()
    made.files["leaderboard.csv"] = board.leaderboard.to_csv(index=False, lineterminator="\n")
    cited = cited_methods(board)
    if cited:
        made.files["tables/references.bib"] = references(cited.values())
    keys = {label: key for label, (key, _) in cited.items()}
    for setting in board.settings:
        for table in setting_tables(setting):
            made.files.update(_table_files(table, setting, look, keys))
    for family in board.families:
        made.files.update(_table_files(ratio_table(family), family.together, look, keys))
    _draw_all(board, made, known, look)
    return made


def terminal_tables(board: Board, width: int = 80) -> list[RichTable]:
    """Tables for the command line: balanced, by class frequency, by class up to 20 classes, cost,
    and by imbalance ratio; in parts that are no wider than `width` characters.
    """
    tables: list[Table | None] = []
    for setting in board.settings:
        tables.append(balanced_table(setting))
        tables.append(group_table(setting))
        if 0 < len(setting.classes.facts) <= _TERMINAL_CLASSES:
            tables.append(per_class_table(setting))
        tables.append(cost_table(setting, class_attacks(setting.attacks)))
    tables += [ratio_table(family) for family in board.families]
    known = [table for table in tables if table is not None]
    return [part for table in known for part in table.rich_parts(width)]


def _table_files(
    table: Table, group: Group, look: Look, keys: Mapping[str, str]
) -> dict[str, str | bytes]:
    """A table in all formats; references stand where methods are ranked."""
    name = f"tables/{table.name}{group.ending}"
    names = field_names(group.labels, group.shown_attacks, str(group.key["dataset"]))
    written = replace(table, names=names)
    cited = keys if table.name in _CITING else {}
    return {
        f"{name}.md": written.to_markdown(),
        f"{name}.tex": written.to_latex(look.columns or 2, f"{group.slug}-{table.name}", cited),
        f"{name}.csv": table.to_csv(),
    }


def _draw_all(board: Board, made: Rendered, known: Mapping[str, str], look: Look) -> None:
    """Draw every figure but those that are there already, drawn from the same."""
    code, before = renderer_digest(), dict[str, list[str]]()
    for file, digest in known.items():
        before.setdefault(digest, []).append(file)
    for ending, name, shown, draw in _drawings(board, look):
        digest = hashlib.sha256(f"{code}{look}{shown}".encode()).hexdigest()[:16]
        digest = f"{name}{ending} {digest}"
        there = before.get(digest, [])
        made.drawn.update(dict.fromkeys(there, digest))
        for part, figure in draw().items() if not there else ():
            for kind in _KINDS:
                file = f"figures/{part}{ending}.{kind}"
                made.files[file] = figure_bytes(figure, kind, look.dpi)
                made.drawn[file] = digest


def _drawings(
    board: Board, look: Look
) -> Iterator[tuple[str, str, str, Callable[[], Mapping[str, Figure]]]]:
    """Yield every figure: ending and name, a text of all it shows, and how it is drawn."""
    charts = [(one.ending, chart) for one in board.settings for chart in setting_charts(one)]
    charts += [(end, chart) for _, end, chart in spanning_charts(board.radii, board.families)]
    for ending, chart in charts:
        if chart.printed:
            yield ending, chart.name, repr(chart), partial(print_chart, chart, look)
    for one in board.settings:
        if len(one.examples):
            draw = partial(adversarial_figures, one, look.width)
            yield one.ending, "adversarial", examples_digest(one), draw
