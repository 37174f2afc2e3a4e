"""The page of entries: each chart to look into, with its tables, in one file without a network.

What an entry shows lies beside its figure (`page.json`), so that the page holds all entries that
were ever reproduced in a directory, whichever a command made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltrobust.report.chart import Chart
from ltrobust.report.markup import Table, cell_text
from ltrobust.report.page import fill_template
from ltrobust.report.screen import show_panel

SHOWN = "page.json"
"""Name of the file in an entry's folder."""


def entry_json(chart: Chart, tables: Sequence[Table]) -> str:
    """What the page shows of an entry, as JSON."""
    shown = {
        "name": chart.name,
        "title": chart.title,
        "note": chart.note,
        "panels": [panel.name for panel in chart.panels],
        "figures": [show_panel(panel, {}, legend=not panel.named) for panel in chart.panels],
        "tables": [
            {
                "title": table.title,
                "caption": table.caption,
                "columns": [str(name) for name in table.frame.columns],
                "rows": [[cell_text(cell) for cell in row] for row in table.frame.to_numpy()],
            }
            for table in tables
        ],
    }
    return json.dumps(shown, sort_keys=True) + "\n"


def papers_page(folder: Path) -> str:
    """Make the page of all entries that were reproduced in a directory."""
    entries = [_read(file) for file in sorted(folder.glob(f"*/{SHOWN}"))]
    known = [entry for entry in entries if entry is not None]
    figures = {
        f"{entry['name']}-{place}": figure
        for entry in known
        for place, figure in enumerate(entry["figures"])
    }
    return fill_template("papers.html.j2", figures, title="Published and ours", entries=known)


def _read(file: Path) -> dict[str, Any] | None:
    """An entry of the page; None for a file that is none, since others may lie there."""
    try:
        shown = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = {"name", "title", "note", "panels", "figures", "tables"}
    return shown if isinstance(shown, dict) and wanted <= shown.keys() else None
