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
import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ltrobust.report.chart_parts import THEMES
from ltrobust.report.groups import comparable_groups
from ltrobust.report.leaderboard import leaderboard
from ltrobust.report.sections import FACETS, SCORE_TITLES, Section, build_section


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
    """Make the page of a report. Equal input gives equal text.

    Args:
        metrics: rows of metrics.csv.
        per_class: rows of per_class.csv; may be empty.
        histories: run id to its history.csv; runs may be missing.
        comparisons: rows of comparisons.csv; without them no score is marked as within noise.
        title: the heading, as a rule the suite's name.
        downloads: text of a link to the file's path relative to the page, such as
            `{"metrics.csv": "metrics.csv"}`. The leaderboard itself is embedded as well.
        across: what rows of one leaderboard may differ in, from `parse_across`.

    Returns:
        HTML, about 5 MB, of which plotly's bundle is nearly all.

    Raises:
        UserError: metrics is empty, lacks columns, or contradicts itself.
    """
    board = leaderboard(metrics, across)
    sections = [
        build_section(place, group, per_class, histories, comparisons)
        for place, group in enumerate(comparable_groups(metrics, across))
    ]
    figures = {name: _figure(figure) for part in sections for name, figure in part.figures.items()}
    scripts = {
        "theme_js": _asset("theme.js"),
        "plotly_js": _lines(get_plotlyjs()),
        "page_js": _asset("page.js"),
    }
    return _template().render(
        title=title,
        sections=sections,
        facets=_facets(sections),
        score_titles=SCORE_TITLES,
        methods=len({row.label for part in sections for row in part.rows}),
        versions=sorted({str(version) for version in metrics["ltrobust"].dropna()})
        if "ltrobust" in metrics
        else [],
        downloads={text: quote(path, safe="/._-~") for text, path in downloads.items()},
        leaderboard_link=_data_link(board.to_csv(index=False, lineterminator="\n")),
        policy=_policy(scripts.values()),
        css=Markup(_asset("page.css")),
        data=Markup(safe_json({"figures": figures, "themes": THEMES})),
        **{name: Markup(text) for name, text in scripts.items()},
    )


def safe_json(value: Any) -> str:
    """Write JSON that may stand inside a script element: without `<`, `>` and `&`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _figure(figure: go.Figure) -> dict[str, Any]:
    """A figure without plotly's default look: the page lays its own under it."""
    drawn: dict[str, Any] = figure.to_plotly_json()
    drawn["layout"].pop("template", None)
    return drawn


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


def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset("page.html.j2"))
