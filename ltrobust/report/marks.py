"""The small signs beside names and scores, and the sentences that explain them.

† beside a number, or a name where all its numbers are meant: a flagged reliability check puts it in
doubt. ~ beside a score: its distance to the best is within noise. * beside the best: it leads all
others significantly. They come in as columns of
frames; nothing is tested here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from ltrobust.evaluation.concerns import concern, concerns
from ltrobust.evaluation.metrics import CUTS_TIES, NO_GROUPS
from ltrobust.report.groups import Group
from ltrobust.report.setting import CONTESTS, NOISE, Lead, Setting

FLAG, NEAR, AHEAD = "†", "~", "*"
_LEVEL = 0.05
_BASES = {"paired images": "paired over the same images", "seeds": "Welch's interval over seeds"}


def sign_of(group: Group, label: str, *attacks: str) -> str:
    """The † of a number under these attacks, "" where no flagged check concerns any."""
    checks = group.checks.get(label, ())
    return FLAG if any(concerns(check, attack) for check in checks for attack in attacks) else ""


def reliability_note(
    shown: tuple[Group, Sequence[str]], *beside: tuple[Setting, Sequence[str]]
) -> str:
    """The footnote of a table with numbers under these attacks; "" where there is nothing to say.

    It tells which flagged checks put which numbers in doubt, what was found beside that, and who
    has no report.

    Args:
        shown: a group and attacks.
        beside: the same runs on other images, and attacks.
    """
    group = shown[0]
    flagged, harmless = {}, {}
    for label in group.labels:
        named = [(group, label, shown[1])]
        named += [(one, one.label_of(group, label), attacks) for one, attacks in beside]
        checks: dict[str, bool] = {}  # to whether it puts a number of the table in doubt
        there: dict[str, bool] = {}  # attack to whether its number is in doubt
        for one, own, attacks in named:
            made = [attack for attack in attacks if (own, attack) in one.cells]
            there |= {attack: there.get(attack, False) for attack in made}
            for name in one.checks.get(own, ()):
                doubts = [attack for attack in made if concerns(name, attack)]
                checks[name] = checks.get(name, False) or bool(doubts)
                there |= dict.fromkeys(doubts, True)
        doubted = [attack for attack, doubt in there.items() if doubt]
        where = "" if len(doubted) == len(there) else f" under {', '.join(doubted)}"
        if doubted:
            flagged[f"{label}{where}"] = [name for name, doubt in checks.items() if doubt]
        if found := [name for name in checks if concern(name) == "none"]:
            harmless[label] = found
    note = f" {flag_sentence(flagged)}" if flagged else ""
    if harmless:
        note += f" Found, and no doubt about these numbers: {_listed(harmless)}."
    return note + "".join(dict.fromkeys(_unchecked_note(*one) for one in (shown, *beside)))


def _unchecked_note(group: Group, attacks: Sequence[str]) -> str:
    """Who was not checked, under which of the attacks."""
    without = []
    for label in group.labels:
        there = {attack: group.cells.get((label, attack), ()) for attack in attacks}
        where = [
            attack
            for attack, rows in there.items()
            if any(not isinstance(row["reliability"], str) for row in rows)
        ]
        if where:
            everywhere = len(where) == sum(map(bool, there.values()))
            without.append(label if everywhere else f"{label} under {', '.join(where)}")
    if len(without) > 1 and without == group.labels:
        return " ? reliability not checked, for any method."
    return f" ? reliability not checked: {', '.join(without)}." if without else ""


def flag_sentence(flagged: Mapping[str, Sequence[str]]) -> str:
    """Name the checks behind each †; `flagged` is label to names of checks, at least one."""
    return f"{FLAG} reliability checks flagged: {_listed(flagged)}; see docs/evaluation.md."


def _listed(checks: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{label} ({', '.join(names)})" for label, names in checks.items())


def near_best(*shown: tuple[Setting, Iterable[str], Iterable[str]]) -> str:
    """Explain ~ and * of a table with these settings' attacks and contests ("balanced", "tail")."""
    contests = [
        setting.leads.get(cell, ())
        for setting, attacks, named in shown
        for cell in itertools.product(sorted(attacks), sorted(named))
    ]
    leads = [lead for contest in contests for lead in contest]
    noise = [lead for lead in leads if lead.verdict == NOISE]
    bases = " or ".join(_BASES.get(name, name) for name in sorted({one.basis for one in noise}))
    sentence = f" {NEAR} within noise of the best (95%, {bases})." if noise else ""
    if any(map(_is_ahead, contests)):
        sentence += f" {AHEAD} ahead of every other (p < {_LEVEL:g} after Holm's correction)."
    unknown = sorted({lead.other for lead in leads if lead.verdict == "unknown"})
    if unknown:
        sentence += f" No interval of the distance to the best: {', '.join(unknown)}."
    return sentence


def near_sign(setting: Setting, label: str, attack: str, contest: str | None) -> str:
    """The ~ or * of a score; "" where it has none."""
    if contest is None:
        return ""
    if label in setting.within_noise(attack, contest):
        return NEAR
    leads = setting.leads.get((attack, contest), ())
    return AHEAD if _is_ahead(leads) and label == leads[0].best else ""


def score_signs(setting: Setting, label: str, attack: str, score: str) -> str:
    """All signs of one score: its †, and its ~ or *."""
    near = near_sign(setting, label, attack, CONTESTS.get(score))
    return sign_of(setting, label, attack) + near


def _is_ahead(leads: Sequence[Lead]) -> bool:
    """Whether the best leads every other significantly."""
    return bool(leads) and all(
        lead.p_holm < _LEVEL and lead.verdict not in (NOISE, "unknown") for lead in leads
    )


def grouping_note(group: Group) -> str:
    """Say how head, medium and tail were cut."""
    text = group.rows[0]["groups"]
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
