"""The small signs beside names and scores, and the sentences that explain them.

† beside a name: a reliability check was flagged. ~ beside a score: its distance to the best is
within noise. Both come in as columns of frames; nothing is tested here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ltrobust.evaluation.metrics import CUTS_TIES, NO_GROUPS
from ltrobust.report.groups import Group

FLAG, NEAR = "†", "~"
_BASES = {"paired images": "paired over the same images", "seeds": "Welch's interval over seeds"}


@dataclass(frozen=True)
class Near:
    """Which scores are within noise of the best.

    Attributes:
        labels: attack and contest ("balanced" or "tail") to labels within noise of the best.
        sentence: explains the sign; "" where no score has it.
    """

    labels: Mapping[tuple[str, str], frozenset[str]]
    sentence: str

    def sign(self, label: str, attack: str, contest: str) -> str:
        """The sign behind one score."""
        return NEAR if label in self.labels.get((attack, contest), ()) else ""


def shown_names(group: Group) -> dict[str, str]:
    """Label to label as written, with a † where any of its runs has a flagged reliability check."""
    flagged = flagged_checks(group)
    return {label: label + FLAG if flagged[label] else label for label in group.labels}


def flagged_checks(group: Group) -> dict[str, list[str]]:
    """Label to the names of the checks that are flagged for any of its runs."""
    checks: dict[str, list[str]] = {label: [] for label in group.labels}
    for label, text in zip(group.rows["label"], group.rows["reliability"], strict=True):
        names = text.split(";") if isinstance(text, str) else []
        checks[label] += [name for name in names if name and name not in checks[label]]
    return checks


def reliability_note(group: Group) -> str:
    """The footnote of a table: which checks were flagged, and who has no report; "" for neither."""
    flagged = {label: names for label, names in flagged_checks(group).items() if names}
    note = f" {flag_sentence(flagged)}" if flagged else ""
    known = group.rows.loc[group.rows["reliability"].map(lambda v: isinstance(v, str)), "run_id"]
    without = [label for label in group.labels if not set(group.runs(label)).issubset(set(known))]
    if not without:
        return note
    if len(without) == len(group.labels) > 1:
        return f"{note} ? no reliability report for any method."
    return f"{note} ? no reliability report: {', '.join(without)}."


def flag_sentence(flagged: Mapping[str, Sequence[str]]) -> str:
    """Name the checks behind each †; `flagged` is label to names of checks, at least one."""
    listed = "; ".join(f"{label} ({', '.join(names)})" for label, names in flagged.items())
    return f"{FLAG} reliability checks flagged: {listed}; see docs/evaluation.md."


def near_best(
    group: Group, comparisons: pd.DataFrame | None, attacks: Iterable[str], contests: Iterable[str]
) -> Near:
    """Find the scores whose distance to the best is within noise.

    Args:
        group: the results in the table.
        comparisons: rows of comparisons.csv, or None: then nothing is marked.
        attacks: attacks that the table shows.
        contests: "balanced", "tail" or both, as the table shows.
    """
    if comparisons is None or comparisons.empty:
        return Near({}, "")
    own = comparisons[
        (comparisons["setting"] == group.slug)
        & comparisons["attack"].isin(list(attacks))
        & comparisons["group"].isin(list(contests))
    ]
    noise = own[own["verdict"] == "within noise"]
    labels = {
        (str(attack), str(contest)): frozenset(rows["other"])
        for (attack, contest), rows in noise.groupby(["attack", "group"])
    }
    bases = " or ".join(_BASES.get(basis, basis) for basis in sorted(set(noise["basis"])))
    sentence = f" {NEAR} within noise of the best (95%, {bases})." if len(noise) else ""
    unknown = sorted(set(own.loc[own["verdict"] == "unknown", "other"]))
    if unknown:
        sentence += f" No interval of the distance to the best: {', '.join(unknown)}."
    return Near(labels, sentence)


def grouping_note(group: Group) -> str:
    """Say how head, medium and tail were cut."""
    texts = {text for text in group.rows["groups"] if isinstance(text, str) and text}
    if len(texts) != 1:
        return " Head: the most frequent third of the classes, tail: the rarest."
    (text,) = texts
    if text == NO_GROUPS:
        return (
            " All classes have the same number of training images: there is no head, medium or "
            "tail, and no number for them."
        )
    if "/" in text:
        many, few = text.split("/")
        return (
            f" Head: classes of more than {many} training images, tail: of fewer than {few}, "
            "medium: the others."
        )
    sizes, cuts, _ = text.partition(CUTS_TIES)
    head, medium, tail = sizes.split(",")
    middle = f"medium: the next {medium}" if medium != "0" else "medium: none"
    parted = " These sizes part classes of equal size, by their index." if cuts else ""
    return f" Head: the {head} most frequent classes, {middle}, tail: the {tail} rarest.{parted}"
