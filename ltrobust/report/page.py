"""The leaderboard page: one self-contained HTML file that opens from disk without a network.

It fills the template with the sections of `sections.py`, embeds plotly's bundle once and the
figures as JSON, and forbids by a content security policy every script but its own and every
request. Names come from users: the template escapes all text, embedded JSON holds no `<`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ltrobust.report.board import Board, make_board
from ltrobust.report.screen import THEMES
from ltrobust.report.sections import FACETS, Section, build_sections, score_titles


def board_page(board: Board, *, title: str, downloads: Mapping[str, str]) -> str:
    """Make the page of a report. Equal boards give equal text.

    Args:
        board: what it shows.
        title: the heading, as a rule the suite's name.
        downloads: text of a link to the file's path relative to the page, such as
            `{"metrics.csv": "metrics.csv"}`. The leaderboard itself is embedded as well.

    Returns:
        HTML, about 5 MB, of which plotly's bundle is nearly all.
    """
    sections = build_sections(board)
    figures = {name: figure for part in sections for name, figure in part.figures.items()}
    csv = board.leaderboard.to_csv(index=False, lineterminator="\n")
    return fill_template(
        "page.html.j2",
        figures,
        title=title,
        sections=sections,
        facets=_facets(sections),
        score_titles=score_titles(),
        methods=len({row.label for part in sections for row in part.rows}),
        versions=board.versions,
        downloads={text: quote(path, safe="/._-~") for text, path in downloads.items()},
        leaderboard_link=_data_link(csv),
    )


def fill_template(name: str, figures: Mapping[str, Any], **values: Any) -> str:
    """Fill a template that shows these figures (name to what `show_panel` gave)."""
    scripts = {
        "theme_js": _asset("theme.js"),
        "plotly_js": _lines(get_plotlyjs()),
        "page_js": _asset("page.js"),
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset(name)).render(
        policy=_policy(scripts.values()),
        css=Markup(_asset("page.css")),
        data=Markup(safe_json({"figures": figures, "themes": THEMES})),
        **{script: Markup(text) for script, text in scripts.items()},
        **values,
    )


def page(
    metrics: pd.DataFrame,
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    comparisons: pd.DataFrame | None = None,
    *,
    title: str,
    downloads: Mapping[str, str],
    across: Sequence[str] = (),
) -> str:
    """Make the page of these tables; see `make_board` and `board_page`."""
    board = make_board(metrics, per_class, histories, comparisons, across=across)
    return board_page(board, title=title, downloads=downloads)


def safe_json(value: Any) -> str:
    """Write JSON that may stand inside a script element: without `<`, `>` and `&`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _facets(sections: list[Section]) -> dict[str, tuple[str, list[str]]]:
    """The filters that have a choice: key to its name and values."""
    found = {
        key: (name, sorted({part.facets[key] for part in sections}, key=_by_number))
        for key, name in FACETS.items()
    }
    return {key: (name, values) for key, (name, values) in found.items() if len(values) > 1}


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return 0.0, text


def _policy(scripts: Any) -> str:
    """A content security policy that lets these scripts run, and nothing be fetched."""
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _data_link(csv: str) -> str:
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv.encode()).decode()}"


def _asset(name: str) -> str:
    return _lines(files("ltrobust.report").joinpath("templates", name).read_text("utf-8"))


def _lines(script: str) -> str:
    """Plain line ends, as browsers read them, or the policy's hashes would not fit."""
    return script.replace("\r\n", "\n").replace("\r", "\n")
