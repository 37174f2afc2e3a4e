"""The † of numbers that a flagged reliability check puts in doubt, and the sentence about it.

What is flagged comes in the column `reliability` of `compare.compare`; nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from ltrobust.evaluation.concerns import concerns
from ltrobust.papers.ours import Found
from ltrobust.report.marks import FLAG, flag_sentence

NO_REPORT = "no report"
"""Stands in the column `reliability` of runs whose checks were not made."""


def reliability_of(found: Iterable[Found]) -> str:
    """Names of the flagged checks that put any of these evaluations in doubt, joined by ";".

    "" where none does, `NO_REPORT` where none does and a run has no report.
    """
    found = list(found)
    names = dict.fromkeys(
        name
        for one in found
        for name in one.judged.flagged or ()
        if concerns(name, one.evaluation.attack)
    )
    unknown = any(one.judged.flagged is None for one in found)
    return ";".join(names) or (NO_REPORT if unknown else "")


def is_flagged(reliability: str) -> bool:
    """Whether a cell of the column `reliability` names a check."""
    return reliability not in ("", NO_REPORT)


def marked(labels: Sequence[str], reliability: Sequence[str]) -> list[str]:
    """Names with a † where a check is flagged in the same row."""
    pairs = zip(labels, reliability, strict=True)
    return [f"{label}{FLAG}" if is_flagged(checks) else label for label, checks in pairs]


def flagged_labels(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Label to the checks that are flagged in any of its rows; labels without one are left out."""
    found: dict[str, list[str]] = {}
    for label, checks in zip(frame["label"], frame["reliability"], strict=True):
        if is_flagged(checks):
            known = found.setdefault(label, [])
            known += [name for name in checks.split(";") if name not in known]
    return found


def reliability_note(frame: pd.DataFrame) -> str:
    """The footnote of a table: which checks were flagged, and who has no report; "" for neither."""
    parts = []
    if flagged := flagged_labels(frame):
        told = {name: [_at(frame, name, one) for one in own] for name, own in flagged.items()}
        parts.append(flag_sentence(told))
    without = dict.fromkeys(frame.loc[frame["reliability"] == NO_REPORT, "label"])
    if without:
        measured = set(frame.loc[frame["n"] > 0, "label"])
        who = "for any run of ours" if measured == set(without) else f"for {', '.join(without)}"
        parts.append(f"No reliability report {who}.")
    return " ".join(parts)


def _at(frame: pd.DataFrame, label: str, check: str) -> str:
    """A check with the imbalance ratios at which it was flagged, unless that is all of them."""
    own = frame[(frame["label"] == label) & (frame["n"] > 0)]
    here = own.loc[[check in checks.split(";") for checks in own["reliability"]], "ratio"]
    ratios = sorted(here.unique())
    if len(ratios) == own["ratio"].nunique():
        return check
    return f"{check} at imbalance ratio {', '.join(f'{ratio:g}' for ratio in ratios)}"
