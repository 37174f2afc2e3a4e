"""Published values beside ours, and a verdict for each.

A value `agrees` when it lies in our 95% interval widened on both sides by 1.5 points, which stand
for what another training seed does, and by two standard errors of ours, which stand for the
published value having been measured on a finite test set too; else it `differs`. A value that was
obtained otherwise (network, epochs, choice of the epoch, attack, test set) is `not comparable`, and
the verdict says why; at CPU scale none is. The size of a test set is no reason by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ltrobust.config import Run
from ltrobust.papers.entries import Entry, Scale
from ltrobust.papers.ours import UNMEASURED, Measured, Ours
from ltrobust.papers.published import PAPERS_AUTOATTACK, TORCHATTACKS, Value, select
from ltrobust.papers.reliability import reliability_of

TOLERANCE = 0.015
"""What is added to our interval for the seed of the training, as a fraction."""
STANDARD_ERRORS = 2.0
AGREES, DIFFERS = "agrees", "differs"
NOT_COMPARABLE = "not comparable: "
RULE = (
    "agrees: the published value lies in our 95% interval widened by 1.5 points (another training "
    "seed) and two standard errors of ours (the published value's own test images); differs: it "
    "does not."
)
COLUMNS = [
    *("label", "method", "published_method", "ratio", "attack", "published_attack", "metric"),
    *("series", "published", "ours", "low", "high", "n", "n_seeds", "seeds", "difference"),
    *("verdict", "doubt", "note", "setting_notes", "source", "run_ids", "reliability"),
]


def compare(entry: Entry, values: pd.DataFrame, ours: Ours, scale: Scale) -> pd.DataFrame:
    """Set every published value of an entry beside ours.

    Returns:
        `COLUMNS`, one row a published value. `label` is our name of the run, or the paper's of a
        method that is published only (`method` is "" then). `published`, `ours`, `low`, `high` and
        `difference` (ours - published) are fractions, NaN where there is none. `reliability`: see
        `reliability.reliability_of`.
    """
    rows = []
    for value in select(entry, values):
        own = value.ours
        measured = None
        if own is not None:
            measured = ours.measure(own, value.ratio, value.attack, value.metric)
        runs = ours.planned(own, value.ratio) if own is not None else []
        reason = why_not(value, runs, measured, scale)
        rows.append(_row(value, measured, verdict(value.value, measured, reason)))
    return pd.DataFrame(rows, columns=COLUMNS)


def why_not(value: Value, runs: Sequence[Run], measured: Measured | None, scale: Scale) -> str:
    """Why a published value cannot be a target for ours; "" when it can."""
    if value.doubt:
        return value.doubt
    if value.published_attack == TORCHATTACKS:
        return PAPERS_AUTOATTACK
    if value.ours is None:
        return "this entry has no run of the method"
    if scale == "cpu":
        return "cpu scale"
    if value.selector.reason:
        return value.selector.reason
    return _other_training(value, runs) or _other_test(value, measured)


def verdict(published: float, measured: Measured | None, reason: str) -> str:
    """Judge one published value by the rule of this module; see `RULE`."""
    if reason:
        return f"{NOT_COMPARABLE}{reason}"
    assert measured is not None
    slack = TOLERANCE + STANDARD_ERRORS * measured.estimate.error
    low, high = measured.interval
    inside = low - slack <= published <= high + slack
    return AGREES if inside else DIFFERS


def _other_training(value: Value, runs: Sequence[Run]) -> str:
    if not runs:
        return "no run of ours is planned for it"
    run = runs[0]
    theirs, ours = _architecture(value.arch), run.arch
    if theirs != ours:
        return f"architecture {value.arch or 'unknown'}, ours {ours}"
    if value.epochs != run.recipe.epochs:
        return f"{value.epochs or 'unknown number of'} epochs, ours {run.recipe.epochs}"
    chosen = run.select if value.ours is None or value.ours.epoch is None else "last"
    if value.selector.checkpoint != chosen:
        words = {"last": "the last", "best-on-test": "the best on the test set"}
        own = words.get(chosen, "the best on held-out images")
        return f"epoch: {words[value.selector.checkpoint]}, ours {own}"
    return ""


def _other_test(value: Value, measured: Measured | None) -> str:
    if measured is None:
        return "ours is missing"
    if value.test_protocol != measured.test_protocol:
        return f"{value.test_protocol} test set, ours {measured.test_protocol}"
    return ""


def _architecture(name: str) -> str:
    """A paper's name of a network as ours: "ResNet-18" is resnet18, "WRN-34-10" wrn-34-10."""
    return name.lower().replace("resnet-", "resnet")


def _row(value: Value, measured: Measured | None, judged: str) -> dict[str, object]:
    found = measured or UNMEASURED
    low, high = found.interval
    return {
        "label": value.label,
        "method": value.ours.method if value.ours else "",
        "published_method": value.method,
        "ratio": value.ratio,
        "attack": value.attack,
        "published_attack": value.published_attack,
        "metric": value.metric,
        "series": value.selector.title,
        "published": value.value,
        "ours": found.value,
        "low": low,
        "high": high,
        "n": found.n,
        "n_seeds": found.n_seeds,
        "seeds": ",".join(str(run.seed) for run in found.runs),
        "difference": found.value - value.value,
        "verdict": judged,
        "doubt": value.doubt,
        "note": value.selector.note,
        "setting_notes": value.notes,
        "source": value.source,
        "run_ids": ",".join(run.run_id for run in found.runs),
        "reliability": reliability_of(found.found),
    }
