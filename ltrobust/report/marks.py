"""The small signs beside names and scores, and the sentences that explain them.

† beside a number, or a name where all its numbers are meant: a flagged reliability check puts it in
doubt. ~ beside a score: its distance to the best is within noise. Both come in as columns of
frames; nothing is tested here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ltrobust.evaluation.concerns import concern, concerns
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


def shown_names(group: Group, attacks: Iterable[str]) -> dict[str, str]:
    """Label to label as written: with a † where a number under one of these attacks is in doubt."""
    marked = {label for attack, label in _cells(group, attacks) if sign_of(group, label, attack)}
    return {label: label + FLAG if label in marked else label for label in group.labels}


def sign_of(group: Group, label: str, attack: str) -> str:
    """The † of a number, "" where no flagged check concerns it."""
    return FLAG if any(concerns(check, attack) for check in flagged_checks(group)[label]) else ""


def doubted(group: Group) -> frozenset[tuple[str, str]]:
    """The pairs of label and attack whose numbers are in doubt."""
    pairs = _cells(group, group.attacks)
    return frozenset((label, a) for a, label in pairs if sign_of(group, label, a))


def _cells(group: Group, attacks: Iterable[str]) -> list[tuple[str, str]]:
    return [(attack, label) for attack in attacks for label in group.labels]


def flagged_checks(group: Group) -> dict[str, list[str]]:
    """Label to the names of the checks that are flagged for any of its runs."""
    checks: dict[str, list[str]] = {label: [] for label in group.labels}
    for label, text in zip(group.rows["label"], group.rows["reliability"], strict=True):
        names = text.split(";") if isinstance(text, str) else []
        checks[label] += [name for name in names if name and name not in checks[label]]
    return checks


def reliability_note(group: Group, attacks: Sequence[str]) -> str:
    """The footnote of a table with numbers under these attacks; "" where there is nothing to say.

    It tells which flagged checks put which numbers in doubt, what was found beside that, and who
    has no report.
    """
    flagged, beside = {}, {}
    for label, names in flagged_checks(group).items():
        told = {name: [a for a in attacks if concerns(name, a)] for name in names}
        doubted = [a for a in attacks if any(a in own for own in told.values())]
        where = "" if len(doubted) == len(attacks) else f" under {', '.join(doubted)}"
        if doubted:
            flagged[f"{label}{where}"] = [name for name, own in told.items() if own]
        if harmless := [name for name in names if concern(name) == "none"]:
            beside[label] = harmless
    note = f" {flag_sentence(flagged)}" if flagged else ""
    if beside:
        note += f" Found, and no doubt about these numbers: {_listed(beside)}."
    return note + _unchecked_note(group, attacks)


def _unchecked_note(group: Group, attacks: Sequence[str]) -> str:
    """Who was not checked, under which of the attacks."""
    known = group.rows["reliability"].map(lambda value: isinstance(value, str))
    rows = group.rows[~known & group.rows["attack"].isin(list(attacks))]
    without = []
    for label in group.labels:
        own = set(rows.loc[rows["label"] == label, "attack"])
        where = [attack for attack in attacks if attack in own]
        there = set(group.rows.loc[group.rows["label"] == label, "attack"])
        if where:
            everywhere = own == there & set(attacks)
            without.append(label if everywhere else f"{label} under {', '.join(where)}")
    if len(without) > 1 and without == group.labels:
        return " ? reliability not checked, for any method."
    return f" ? reliability not checked: {', '.join(without)}." if without else ""


def flag_sentence(flagged: Mapping[str, Sequence[str]]) -> str:
    """Name the checks behind each †; `flagged` is label to names of checks, at least one."""
    return f"{FLAG} reliability checks flagged: {_listed(flagged)}; see docs/evaluation.md."


def _listed(checks: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{label} ({', '.join(names)})" for label, names in checks.items())


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
