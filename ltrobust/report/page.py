"""The leaderboard page: one self-contained HTML file that opens from disk without a network.

It fills the template with the sections of `sections.py`, embeds figures as JSON with the script
that draws them, and forbids by a content security policy every script but its own and every
request. Names come from users: the template escapes all text, embedded JSON holds no `<`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ltrobust.report.board import Board
from ltrobust.report.screen import THEMES
from ltrobust.report.sections import FACETS, build_sections, facet, score_titles


def board_page(board: Board, *, title: str, downloads: Iterable[str]) -> str:
    """Make the page of a report. Equal boards give equal text.

    Args:
        board: what it shows.
        title: the heading, as a rule the suite's name.
        downloads: names of files beside the page. The leaderboard itself is embedded as well.

    Returns:
        HTML.
    """
    sections = build_sections(board)
    figures = {name: figure for part in sections for name, figure in part["figures"].items()}
    csv = board.leaderboard.to_csv(index=False, lineterminator="\n").encode()
    return fill_template(
        "page.html.j2",
        figures,
        title=title,
        sections=sections,
        facets=_facets(board),
        score_titles=score_titles(),
        methods=len({label for one in board.settings for label in one.labels}),
        versions=board.versions,
        downloads={name: name for name in downloads},
        leaderboard_link=f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv).decode()}",
    )


def fill_template(name: str, figures: Mapping[str, Any], **values: Any) -> str:
    """Fill a template that shows these figures (name to what `show_panel` gave)."""
    scripts = {
        "theme_js": _asset("theme.js"),
        "chart_js": _asset("chart.js"),
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


def safe_json(value: Any) -> str:
    """Write JSON that may stand inside a script element: without `<`, `>` and `&`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _facets(board: Board) -> dict[str, tuple[str, list[str]]]:
    """The filters that have a choice: key to its name and values."""
    found = {}
    for key, name in FACETS.items():
        values = {one.key[key] for one in board.settings}
        if len(values) > 1:
            found[key] = name, [facet(value) for value in sorted(values)]
    return found


def _policy(scripts: Iterable[str]) -> str:
    """A content security policy that lets these scripts run, and nothing be fetched."""
    hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return _lines(files("ltrobust.report").joinpath("templates", name).read_text("utf-8"))


def _lines(script: str) -> str:
    """Plain line ends, as browsers read them, or the policy's hashes would not fit."""
    return script.replace("\r\n", "\n").replace("\r", "\n")
