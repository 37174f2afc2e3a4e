"""The comparison and the claims of an entry as tables: Markdown, LaTeX and terminal.

Verdicts are written out in Markdown and CSV; where room is short their reasons become letters that
the caption explains.
"""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from ltrobust.papers.compare import NOT_COMPARABLE, RULE
from ltrobust.papers.entries import Entry
from ltrobust.papers.reliability import is_flagged, marked, reliability_note
from ltrobust.report.estimate import points
from ltrobust.report.marks import FLAG
from ltrobust.report.markup import Table

CLAIMS_CAPTION = (
    "Differences in points. Verdicts follow the 95% interval of our difference: agrees above zero, "
    "differs below, within noise when it holds zero. Nothing corrects for many claims. Basis: over "
    "the same test images in pairs, from two intervals as if they were independent, or over seeds."
)

FLAGGED_CLAIMS = f" {FLAG} rests on a number of ours that a reliability check puts in doubt."


def comparison_table(entry: Entry, frame: pd.DataFrame, note: str) -> Table:
    """The comparison with verdicts in words and a number for the source of each value."""
    table = _comparison(entry, frame, frame["verdict"].tolist(), note)
    numbers = [str(number) for number in _references(frame).values()]
    return replace(table, frame=table.frame.assign(source=numbers))


def short_table(entry: Entry, frame: pd.DataFrame, note: str) -> Table:
    """The comparison with letters for the reasons of "not comparable", for pages and terminals."""
    reasons = frame.loc[frame["verdict"].str.startswith(NOT_COMPARABLE), "verdict"].unique()
    letters = dict(zip(reasons, _names(), strict=False))
    cells = [f"n/c {letters[text]}" if text in letters else text for text in frame["verdict"]]
    told = " ".join(
        f"{letter}: {text.removeprefix(NOT_COMPARABLE)}." for text, letter in letters.items()
    )
    end = f" n/c: not comparable; {told}" if letters else ""
    table = _comparison(entry, frame, cells, f"{note}{end}".strip())
    narrow = table.frame.rename(columns={"published": "publ.", "difference": "diff."})
    return replace(table, frame=narrow)


def claims_table(entry: Entry, frame: pd.DataFrame) -> Table:
    """The claims of the published values, with our difference and verdict."""
    cells = pd.DataFrame(
        {
            "claim": marked(frame["claim"].tolist(), frame["reliability"].tolist()),
            "published": [points(value) for value in frame["published"]],
            "ours": [points(value) for value in frame["ours"]],
            "95%": [
                _span(low, high, sign="+")
                for low, high in zip(frame["low"], frame["high"], strict=True)
            ],
            "n": [_count(n, seeds) for n, seeds in zip(frame["n"], frame["n_seeds"], strict=True)],
            "basis": frame["basis"].tolist(),
            "verdict": frame["verdict"].tolist(),
        }
    )
    title = f"{entry.title}: what the published values say, and ours"
    flagged = any(is_flagged(checks) for checks in frame["reliability"])
    caption = f"{CLAIMS_CAPTION}{FLAGGED_CLAIMS if flagged else ''}"
    return Table(f"{entry.name}-claims", title, caption, cells)


def sources_table(frame: pd.DataFrame) -> Table:
    """The sources of the published values, by the numbers of `comparison_table`."""
    numbers = _references(frame)
    rows: dict[int, dict[str, str]] = {}
    for number, row in zip(numbers.values(), frame.to_dict("records"), strict=True):
        rows.setdefault(
            number,
            {
                "source": str(number),
                "series": str(row["series"]),
                "from": str(row["source"]),
                "settings": str(row["setting_notes"]),
                "note": str(row["note"]),
            },
        )
    title = "Sources of the published values"
    return Table("sources", title, "", pd.DataFrame(list(rows.values())))


def short_tables(
    entry: Entry, frame: pd.DataFrame, claims: pd.DataFrame, note: str
) -> tuple[Table, ...]:
    """Comparison and claims where room is short: page, terminal and LaTeX."""
    short = short_table(entry, frame, note)
    return (short, claims_table(entry, claims)) if len(claims) else (short,)


def markdown(entry: Entry, frame: pd.DataFrame, claims: pd.DataFrame, note: str) -> str:
    """Everything as one Markdown page."""
    parts = [comparison_table(entry, frame, note)]
    parts += [claims_table(entry, claims)] if len(claims) else []
    parts.append(sources_table(frame))
    return "\n".join(part.to_markdown().rstrip() + "\n" for part in parts)


def _comparison(entry: Entry, frame: pd.DataFrame, verdicts: list[str], note: str) -> Table:
    several = frame["ratio"].nunique() > 1
    parts = frame["metric"].nunique() > 1
    series = frame.duplicated(["label", "ratio", "attack", "metric"]).any()
    cells = pd.DataFrame(
        {
            "method": marked(frame["label"].tolist(), frame["reliability"].tolist()),
            **({"IR": [f"{ratio:g}" for ratio in frame["ratio"]]} if several else {}),
            "attack": frame["attack"].tolist(),
            **({"of": [_metric(metric) for metric in frame["metric"]]} if parts else {}),
            **({"series": frame["series"].tolist()} if series else {}),
            "published": frame["published"].astype(float).tolist(),
            "ours": frame["ours"].astype(float).tolist(),
            "95%": [
                _span(low, high) for low, high in zip(frame["low"], frame["high"], strict=True)
            ],
            "n": [_count(n, seeds) for n, seeds in zip(frame["n"], frame["n_seeds"], strict=True)],
            "difference": [points(value) for value in frame["difference"]],
            "verdict": verdicts,
        }
    )
    whole = "" if parts else f"{_metric(str(frame['metric'].iloc[0])).capitalize()}."
    rule = f"Percent; difference: ours - published. {RULE}"
    parts_of_caption = (note, entry.note, whole, rule, reliability_note(frame))
    caption = " ".join(part for part in parts_of_caption if part)
    return Table(entry.name, entry.title, caption, cells)


def _references(frame: pd.DataFrame) -> dict[int, int]:
    """Row position to the number of its source, counted by source, settings and note."""
    numbers: dict[tuple[str, ...], int] = {}
    return {
        place: numbers.setdefault(
            tuple(str(row[name]) for name in ("source", "setting_notes", "series", "note")),
            len(numbers) + 1,
        )
        for place, row in enumerate(frame.to_dict("records"))
    }


def _names() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))


def _metric(metric: str) -> str:
    kind, _, names = metric.partition(":")
    if kind == "mean":
        return f"mean of {len(names.split(','))} classes"
    return {"accuracy": "all images", "balanced": "mean of classes"}.get(kind, names)


def _span(low: float, high: float, sign: str = "") -> str:
    if math.isnan(low) or math.isnan(high):
        return "-"
    between = " to " if sign else "–"
    return f"{100 * low:{sign}.1f}{between}{100 * high:{sign}.1f}"


def _count(n: int, seeds: int) -> str:
    """Test images, and seeds where there are several."""
    if not n:
        return "-"
    return f"{n:,}" if seeds == 1 else f"{n:,} x {seeds} seeds"
