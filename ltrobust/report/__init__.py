"""Turns metric frames into a report: leaderboard, tables and figures, all in memory.

It takes data frames and returns text and bytes under relative file names; reading and writing files
is the caller's part, and nothing here knows of models or training. The package is also the function
`ltrobust.report`, see `callable_package`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table as RichTable

from ltrobust.callable_package import CallablePackage
from ltrobust.report.adversarial import adversarial_figures, example_rows
from ltrobust.report.aggregate import (
    class_attacks,
    class_scores,
    robust_attack,
    scores,
    training_curves,
)
from ltrobust.report.confusion import confusion_figure, confusions
from ltrobust.report.cost import cost_table
from ltrobust.report.cost_figure import cost_figure, training_costs
from ltrobust.report.curves import eps_figure, ratio_figure, steps_figure
from ltrobust.report.figures import attack_figure, balance_figure, per_class_figure, training_figure
from ltrobust.report.groups import Group, comparable_groups
from ltrobust.report.leaderboard import leaderboard
from ltrobust.report.marks import doubted, shown_names
from ltrobust.report.markup import Table
from ltrobust.report.ratios import ratio_families, ratio_table
from ltrobust.report.style import DPI, styled
from ltrobust.report.sweeps import eps_sweeps, ratio_sweep, steps_sweep
from ltrobust.report.tables import balanced_table, group_table, group_tables, per_class_table

sys.modules[__name__].__class__ = CallablePackage

__all__ = ["figure_bytes", "leaderboard", "render", "terminal_tables"]

_TERMINAL_CLASSES = 20
_TERMINAL_ATTACKS = 3


def render(
    metrics: pd.DataFrame,
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    comparisons: pd.DataFrame | None = None,
    confusion: pd.DataFrame | None = None,
    examples: Mapping[str, pd.DataFrame] | None = None,
    across: Sequence[str] = (),
) -> dict[str, str | bytes]:
    """Make every file of a report but its page.

    Args:
        metrics: rows of metrics.csv.
        per_class: rows of per_class.csv; may be empty.
        histories: run id to its history.csv; runs may be missing.
        comparisons: rows of comparisons.csv; without them no score is marked as within noise.
        confusion: rows of confusion.csv; without them its table and figure are left out.
        examples: run id to its examples.parquet as read by the store; runs may be missing.
        across: what rows of one table may differ in, from `parse_across`.

    Returns:
        Relative file name to content: `leaderboard.csv`, `tables/<name>.md|tex|csv`,
        `figures/<name>.png|pdf`. With several groups of comparable results the names of all but
        the main one (`main_group`) end in their group's slug, and what spans groups in that of
        its family. Equal input gives equal bytes.

    Raises:
        UserError: metrics is empty, lacks columns, or contradicts itself.
    """
    files: dict[str, str | bytes] = {
        "leaderboard.csv": leaderboard(metrics, across).to_csv(index=False, lineterminator="\n")
    }
    groups = comparable_groups(metrics, across)
    for group in groups:
        for table in group_tables(group, per_class, comparisons, confusion):
            files |= _table_files(table, group.ending)
        figures = _figures(group, per_class, histories, confusion)
        figures |= _more_figures(group, per_class, examples or {})
        for name, figure in figures.items():
            files |= _figure_files(name, figure, group.ending)
    for spanned, sweep in eps_sweeps(groups).values():
        figure = eps_figure(sweep, _shown(spanned, sweep), spanned.labels)
        files |= _figure_files("eps", figure, spanned.ending)
    for family in ratio_families(groups):
        files |= _table_files(ratio_table(family), family.ending)
        spanned, swept = family.together, ratio_sweep(family)
        kind = str(spanned.key["imbalance_type"])
        figure = ratio_figure(swept, _shown(spanned, swept), spanned.labels, kind)
        files |= _figure_files("ratios", figure, family.ending)
    return files


def terminal_tables(
    metrics: pd.DataFrame,
    per_class: pd.DataFrame,
    comparisons: pd.DataFrame | None = None,
    across: Sequence[str] = (),
) -> list[RichTable]:
    """Tables for the command line: balanced, by class frequency, by class up to 20 classes, cost,
    and by imbalance ratio.

    A balanced table of many attacks comes in parts that fit 80 columns for one seed.
    """
    tables = []
    groups = comparable_groups(metrics, across)
    for group in groups:
        for start in range(0, len(group.attacks), _TERMINAL_ATTACKS):
            part = group.attacks[start : start + _TERMINAL_ATTACKS]
            tables.append(balanced_table(group, part, comparisons))
        tables.append(group_table(group))
        classes = per_class_table(group, per_class)
        if 0 < classes.frame["class"].nunique() <= _TERMINAL_CLASSES:
            tables.append(classes)
        cost = cost_table(group, class_attacks(group.attacks))
        tables += [] if cost is None else [cost]
    tables += [ratio_table(family) for family in ratio_families(groups)]
    return [table.to_rich() for table in tables]


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Save a figure as "png" (150 dpi) or "pdf", without dates, so that bytes can be compared."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    with styled():
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def _table_files(table: Table, ending: str) -> dict[str, str | bytes]:
    name = f"tables/{table.name}{ending}"
    return {
        f"{name}.md": table.to_markdown(),
        f"{name}.tex": table.to_latex(),
        f"{name}.csv": table.to_csv(),
    }


def _figure_files(name: str, figure: Figure, ending: str) -> dict[str, str | bytes]:
    return {f"figures/{name}{ending}.{kind}": figure_bytes(figure, kind) for kind in ("png", "pdf")}


def _figures(
    group: Group,
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    confusion: pd.DataFrame | None,
) -> dict[str, Figure]:
    averages = scores(group)
    mistakes = confusions(group, per_class, confusion)
    shown = shown_names(group, ["clean", robust_attack(averages) or "clean"])
    return {
        "per-class": per_class_figure(class_scores(group, per_class), shown),
        "balance": balance_figure(averages, shown),
        "attacks": attack_figure(averages, doubted(group)),
        **(
            {"training": training_figure(training_curves(group, histories), group.labels)}
            if histories
            else {}
        ),
        **(
            {"confusion": confusion_figure(mistakes, shown_names(group, [mistakes.attack]))}
            if mistakes
            else {}
        ),
    }


def _more_figures(
    group: Group, per_class: pd.DataFrame, examples: Mapping[str, pd.DataFrame]
) -> dict[str, Figure]:
    """Figures that need what not every suite has; those that have nothing to show are left out."""
    steps, costs = steps_sweep(group), training_costs(group)
    images = example_rows(group, per_class, examples)
    pages = adversarial_figures(images, _shown(group, images), group.labels) if len(images) else []
    return {
        **(
            {"steps": steps_figure(steps, _shown(group, steps), group.labels)} if len(steps) else {}
        ),
        **({"cost": cost_figure(costs, _shown(group, costs), group.labels)} if len(costs) else {}),
        **{
            "adversarial" if page == 1 else f"adversarial-{page}": figure
            for page, figure in enumerate(pages, 1)
        },
    }


def _shown(group: Group, frame: pd.DataFrame) -> dict[str, str]:
    """Names as written in a figure of this frame: marked where one of its attacks is in doubt."""
    return shown_names(group, [str(name) for name in frame["attack"].unique()])
