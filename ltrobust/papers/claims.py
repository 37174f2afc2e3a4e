"""What published values say about each other, and whether ours say it too.

A claim is an ordering that the published values imply: `more` is larger than `less`. It is judged
by the 95% interval of our difference: `agrees` when it lies above zero, `differs` below, `within
noise` when it holds zero, `not measured` without our numbers. The published difference is computed
from the published values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from ltrobust.bench.leads import PAIRED, SEEDS
from ltrobust.evaluation.compare import paired_counts, paired_row, seeds_row
from ltrobust.evaluation.metrics import Z95
from ltrobust.papers.compare import AGREES, DIFFERS
from ltrobust.papers.entries import Cell, Claim, Entry, Variant
from ltrobust.papers.ours import Found, Measured, Ours, mean_share, rows_of, strata_of
from ltrobust.papers.published import Value, find, select
from ltrobust.papers.reliability import reliability_of
from ltrobust.report.setting import NOISE

NOT_MEASURED = "not measured"
INTERVALS = "two intervals"
GAINS = {"pgd": "pgd20", "aa": "aa-apgd"}
"""The attacks whose gains are set against each other, by the name of their axis."""
ENDS = ("", "_low", "_high")
COLUMNS = [
    *("claim", "more", "less", "published", "ours", "low", "high", "n", "n_seeds", "basis"),
    *("verdict", "reliability"),
]


@dataclass(frozen=True)
class Difference:
    """A difference of ours with its 95% interval, in fractions; `n` counts test images."""

    value: float
    low: float
    high: float
    n: int
    n_seeds: int
    basis: str

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high


def judge(entry: Entry, values: pd.DataFrame, ours: Ours) -> pd.DataFrame:
    """Judge every claim of an entry.

    Returns:
        `COLUMNS`, one row a claim; `published` is NaN where the published values lack a cell.
        `reliability` is of all runs behind it; see `reliability.reliability_of`.
    """
    published = select(entry, values)
    rows = []
    for claim in entry.claims:
        found = our_difference(claim, ours)
        shown = found or Difference(math.nan, math.nan, math.nan, 0, 0, "")
        rows.append(
            {
                "claim": claim.text,
                "more": _in_words(claim.more),
                "less": _in_words(claim.less),
                "published": published_difference(claim, published),
                "ours": shown.value,
                **asdict(shown),
                "verdict": verdict(shown),
                "reliability": reliability_of(_behind(claim, ours)) if found else "",
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(found: Difference) -> str:
    """What our interval of `more` - `less` says about a claim."""
    if math.isnan(found.low):
        return NOT_MEASURED
    return AGREES if found.low > 0 else DIFFERS if found.high < 0 else NOISE


def published_difference(claim: Claim, values: list[Value]) -> float:
    """`more` - `less` of the published values; NaN where one is missing."""
    sides = []
    for cells in (claim.more, claim.less):
        found = (find(values, cell) for cell in cells)
        first, *second = (math.nan if value is None else value.value for value in found)
        sides.append(first - sum(second))
    return sides[0] - sides[1]


def our_difference(claim: Claim, ours: Ours) -> Difference | None:
    """`more` - `less` of ours with its interval; None when a number is missing.

    All cells are taken from one suite, where there is one with all of them, so that they were
    judged on the same images.
    """
    suite = _common_suite(claim, ours)
    if len(claim.more) == 1:
        return _difference(claim.more[0], claim.less[0], ours, suite)
    paired = _paired_gains(claim, ours, suite)
    if paired is not None:
        return paired
    one = _difference(claim.more[0], claim.more[1], ours, suite)
    other = _difference(claim.less[0], claim.less[1], ours, suite)
    return _minus(one, other) if one and other else None


GAIN_COLUMNS = [
    *("label", "method", "kind", "doubt"),
    *(f"{axis}{end}" for axis in ("pgd", "aa") for end in ENDS),
]


def gains(entry: Entry, values: pd.DataFrame, ours: Ours) -> pd.DataFrame:
    """Gains over the entry's baseline under PGD-20 and under APGD-CE and APGD-T.

    Returns:
        `GAIN_COLUMNS`, fractions: a row "published" or "published only" for each published method
        and "ours" for each of our runs; `method` is the registered one, missing for "published
        only"; `_low` and `_high` are NaN for published ones.
    """
    published = select(entry, values)
    base = Variant(method=entry.baseline)
    rows: list[dict[str, object]] = []
    for method in dict.fromkeys(value.method for value in published):
        cells = {v.attack: v for v in published if v.method == method and v.metric == "accuracy"}
        origin = {v.attack: v for v in published if v.ours == base and v.metric == "accuracy"}
        own = next((v.ours for v in cells.values() if v.ours is not None), None)
        if own == base or not all(a in cells and a in origin for a in GAINS.values()):
            continue
        gain = {axis: cells[a].value - origin[a].value for axis, a in GAINS.items()}
        kind = "published" if own else "published only"
        doubt = "; ".join(dict.fromkeys(v.doubt for v in cells.values() if v.doubt))
        names = {"label": own.label, "method": own.method} if own else {"label": method}
        rows.append({**names, "kind": kind, "doubt": doubt, **gain})
        if own is not None:
            rows += _our_gain(own, base, ours)
    return pd.DataFrame(rows, columns=GAIN_COLUMNS)


def _our_gain(own: Variant, base: Variant, ours: Ours) -> list[dict[str, object]]:
    """One row of `gains`, or none where a number is missing."""
    row: dict[str, object] = {"label": own.label, "method": own.method, "kind": "ours", "doubt": ""}
    suite = next((one.suite for one in ours.find(own, None, GAINS["aa"])), None)
    for axis, attack in GAINS.items():
        more, less = (Cell(**variant.model_dump(), attack=attack) for variant in (own, base))
        found = _difference(more, less, ours, suite)
        if found is None:
            return []
        row |= {axis: found.value, f"{axis}_low": found.low, f"{axis}_high": found.high}
    return [row]


def _common_suite(claim: Claim, ours: Ours) -> int | None:
    cells = (*claim.more, *claim.less)
    for suite in range(len(ours.plans)):
        if all(ours.find(cell.variant, cell.ratio, cell.attack, suite) for cell in cells):
            return suite
    return None


def _behind(claim: Claim, ours: Ours) -> list[Found]:
    """The evaluations of all cells of a claim."""
    suite = _common_suite(claim, ours)
    return [
        one
        for cell in (*claim.more, *claim.less)
        for one in ours.find(cell.variant, cell.ratio, cell.attack, suite)
    ]


def _difference(a: Cell, b: Cell, ours: Ours, suite: int | None) -> Difference | None:
    """A - B: paired over images where both are one run on the same images."""
    if a.published or b.published:
        return None
    left = ours.find(a.variant, a.ratio, a.attack, suite)
    right = ours.find(b.variant, b.ratio, b.attack, suite)
    if not left or not right:
        return None
    if a.epoch or b.epoch or a.metric != b.metric or not _paired(left, right):
        return _unpaired(a, b, ours, suite)
    scores = [[mean_share(strata_of(one, a.metric)) for one in side] for side in (left, right)]
    if any(math.isnan(score) for side in scores for score in side):
        return None
    if max(len(left), len(right)) > 1:
        row = seeds_row(*scores)
        n, seeds = left[0].evaluation.n, min(len(side) for side in scores)
        return Difference(row["difference"], row["low"], row["high"], n, seeds, SEEDS)
    names = left[0].judged.class_names
    one, other = (side[0].evaluation.outcomes() for side in (left, right))
    if one is None or other is None:  # the outcomes are gone
        return _unpaired(a, b, ours, suite)
    counts = paired_counts(one, other, len(names))
    row = paired_row(rows_of(counts, a.metric, names), a.metric)
    return Difference(row["difference"], row["low"], row["high"], row["n"], 1, PAIRED)


def _paired_gains(claim: Claim, ours: Ours, suite: int | None) -> Difference | None:
    """A gain minus a gain over the same images; None where they are not, or there are seeds.

    Agresti and Min's interval (2005): Wald's, after half an image has been added to either side
    and one that counts for neither, so that it has a width even without any difference.
    """
    cells = (*claim.more, *claim.less)
    if any(cell.published or cell.epoch or cell.metric != "accuracy" for cell in cells):
        return None
    found = [ours.find(cell.variant, cell.ratio, cell.attack, suite) for cell in cells]
    if any(len(one) != 1 for one in found) or not _paired(*found):
        return None
    frames = [frame for one in found if (frame := one[0].evaluation.outcomes()) is not None]
    if len(frames) < len(found):
        return None
    rows = [frame.set_index("index")["correct"].astype(int) for frame in frames]
    a, b, c, d = (row.reindex(rows[0].index).to_numpy() for row in rows)
    each = (a - b) - (c - d)
    n = len(each)
    mean = float(each.sum()) / (n + 2)
    half = Z95 * math.sqrt(((float((each**2).sum()) + 1) / (n + 2) - mean**2) / (n + 2))
    value = float(each.mean())
    return Difference(value, min(value, mean - half), max(value, mean + half), n, 1, PAIRED)


def _paired(*sides: Sequence[Found]) -> bool:
    """Whether the evaluations stand on the same test images."""
    return len({one.evaluation.facts.test_sha256 for side in sides for one in side}) == 1


def _unpaired(a: Cell, b: Cell, ours: Ours, suite: int | None) -> Difference | None:
    one = ours.measure(a.variant, a.ratio, a.attack, a.metric, suite)
    other = ours.measure(b.variant, b.ratio, b.attack, b.metric, suite)
    if one is None or other is None:
        return None
    return _minus(one, other)


def _minus(one: Difference | Measured, other: Difference | Measured) -> Difference:
    """Two numbers with intervals, subtracted: square-and-add, as if they were independent."""
    value = one.value - other.value
    (low, high), (other_low, other_high) = one.interval, other.interval
    below = math.hypot(one.value - low, other_high - other.value)
    above = math.hypot(high - one.value, other.value - other_low)
    seeds = min(one.n_seeds, other.n_seeds)
    return Difference(value, value - below, value + above, min(one.n, other.n), seeds, INTERVALS)


def _in_words(cells: Sequence[Cell]) -> str:
    return " - ".join(_cell(cell) for cell in cells)


def _cell(cell: Cell) -> str:
    ratio = "" if cell.ratio is None else f", IR {cell.ratio:g}"
    metric = "" if cell.metric == "accuracy" else f", {cell.metric}"
    return f"{cell.published or cell.variant.label} ({cell.attack}{ratio}{metric})"
