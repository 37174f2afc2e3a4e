"""Turns metric frames into a report: leaderboard, tables and figures, all in memory.

It takes data frames and returns text and bytes under relative file names; reading and writing files
is the caller's part, and nothing here knows of models or training.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table as RichTable

from ltrobust.report.aggregate import class_scores, scores, training_curves
from ltrobust.report.confusion import confusion_figure, confusions
from ltrobust.report.figures import attack_figure, balance_figure, per_class_figure, training_figure
from ltrobust.report.groups import Group, comparable_groups
from ltrobust.report.leaderboard import leaderboard
from ltrobust.report.marks import shown_names
from ltrobust.report.style import DPI, styled
from ltrobust.report.tables import balanced_table, group_table, group_tables, per_class_table

__all__ = ["figure_bytes", "leaderboard", "render", "terminal_tables"]

_TERMINAL_CLASSES = 20
_TERMINAL_ATTACKS = 3


def render(
    metrics: pd.DataFrame,
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    comparisons: pd.DataFrame | None = None,
    confusion: pd.DataFrame | None = None,
) -> dict[str, str | bytes]:
    """Make every file of a report.

    Args:
        metrics: rows of metrics.csv.
        per_class: rows of per_class.csv; may be empty.
        histories: run id to its history.csv; runs may be missing.
        comparisons: rows of comparisons.csv; without them no score is marked as within noise.
        confusion: rows of confusion.csv; without them its table and figure are left out.

    Returns:
        Relative file name to content: `leaderboard.csv`, `tables/<name>.md|tex`,
        `figures/<name>.png|pdf`. With several groups of comparable results, each name ends in its
        group's slug. Equal input gives equal bytes.

    Raises:
        UserError: metrics is empty, lacks columns, or contradicts itself.
    """
    files: dict[str, str | bytes] = {
        "leaderboard.csv": leaderboard(metrics).to_csv(index=False, lineterminator="\n")
    }
    groups = comparable_groups(metrics)
    for group in groups:
        ending = f"-{group.slug}" if len(groups) > 1 else ""
        for table in group_tables(group, per_class, comparisons, confusion):
            files[f"tables/{table.name}{ending}.md"] = table.to_markdown()
            files[f"tables/{table.name}{ending}.tex"] = table.to_latex()
        for name, figure in _figures(group, per_class, histories, confusion).items():
            for kind in ("png", "pdf"):
                files[f"figures/{name}{ending}.{kind}"] = figure_bytes(figure, kind)
    return files


def terminal_tables(
    metrics: pd.DataFrame, per_class: pd.DataFrame, comparisons: pd.DataFrame | None = None
) -> list[RichTable]:
    """Tables for the command line: balanced, by class frequency, and by class up to 20 classes.

    A balanced table of many attacks comes in parts that fit 80 columns for one seed.
    """
    tables = []
    for group in comparable_groups(metrics):
        for start in range(0, len(group.attacks), _TERMINAL_ATTACKS):
            part = group.attacks[start : start + _TERMINAL_ATTACKS]
            tables.append(balanced_table(group, part, comparisons))
        tables.append(group_table(group))
        classes = per_class_table(group, per_class)
        if 0 < classes.frame["class"].nunique() <= _TERMINAL_CLASSES:
            tables.append(classes)
    return [table.to_rich() for table in tables]


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Save a figure as "png" (150 dpi) or "pdf", without dates, so that bytes can be compared."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    with styled():
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def _figures(
    group: Group,
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    confusion: pd.DataFrame | None,
) -> dict[str, Figure]:
    averages = scores(group)
    mistakes = confusions(group, per_class, confusion)
    return {
        "per-class": per_class_figure(class_scores(group, per_class)),
        "balance": balance_figure(averages),
        "training": training_figure(training_curves(group, histories), group.labels),
        "attacks": attack_figure(averages, shown_names(group)),
        **({"confusion": confusion_figure(mistakes, shown_names(group))} if mistakes else {}),
    }
