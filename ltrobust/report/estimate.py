"""The one number of a report: a value with what qualifies it, and how both are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltrobust.evaluation.metrics import Z95

PERCENT = 100.0


@dataclass(frozen=True)
class Estimate:
    """A value with its interval or its deviation over seeds.

    Attributes:
        value: mean over seeds, as a rule a fraction in [0, 1]; NaN when a seed lacks it.
        low: lower end of the 95% interval over test images of a single seed; NaN: none.
        high: upper end.
        std: sample standard deviation over seeds; NaN for one.
        n_seeds: number of seeds.
        n: number of test images; 0 where it is not known or means nothing.
        sign: what is written behind it in a table.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    std: float = math.nan
    n_seeds: int = 0
    n: int = 0
    sign: str = ""

    @property
    def known(self) -> bool:
        """Whether every seed of the row has the value."""
        return not math.isnan(self.value)

    @property
    def ends(self) -> tuple[float, float]:
        """What error bars reach: one deviation over seeds, or the interval of a single one."""
        if self.n_seeds > 1:
            return self.value - self.std, self.value + self.std
        return self.low, self.high

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of a share: over the test images of a single seed, else over seeds.

        Over seeds it is Student's t of their mean, and covers what another training changes.
        """
        if self.n_seeds < 2:
            return self.low, self.high
        from scipy.stats import t as student  # heavy, and only verdicts ask for it

        half = float(student.ppf(0.975, self.n_seeds - 1)) * self.error
        return max(0.0, self.value - half), min(1.0, self.value + half)

    @property
    def error(self) -> float:
        """The standard error: over seeds, or what the interval of a single one says."""
        if self.n_seeds < 2:
            return (self.high - self.low) / (2 * Z95)
        return self.std / math.sqrt(self.n_seeds)

    @property
    def spread(self) -> str:
        """The deviation or interval in percent, in few signs; "" where there is neither."""
        if not self.known or (self.n_seeds < 2 and math.isnan(self.low + self.high)):
            return ""
        if self.n_seeds > 1:
            return f"± {percent(self.std)}"
        return f"{percent(self.low)}–{percent(self.high)}"

    @property
    def words(self) -> str:
        """Value and spread in percent, for a reader."""
        if not self.known:
            return "not measured for every seed"
        more = ""
        if self.spread and self.n_seeds > 1:
            more = f" ({self.spread} over {self.n_seeds} seeds)"
        elif self.spread:
            more = f" (95% interval {percent(self.low)} to {percent(self.high)}, 1 seed)"
        return f"{percent(self.value)}%{more}"


@dataclass(frozen=True)
class Quantity(Estimate):
    """An estimate of something that is no share, in the unit that its column names.

    Attributes:
        digits: decimals shown.
    """

    digits: int = 2

    @property
    def spread(self) -> str:
        """The deviation, without percent."""
        return f"± {number(self.std, self.digits)}" if self.known and self.n_seeds > 1 else ""


MISSING = Estimate(math.nan)


def over_seeds(
    values: Sequence[float], low: float = math.nan, high: float = math.nan, n: int = 0
) -> Estimate:
    """Average one value a seed; a missing value refuses the mean, one seed has no deviation.

    Args:
        values: one a seed.
        low: lower end of the interval, kept for a single seed.
        high: upper end.
        n: test images.
    """
    count = len(values)
    if count == 0 or any(math.isnan(value) for value in values):
        return Estimate(math.nan, n_seeds=count, n=n)
    if count == 1:
        return Estimate(float(values[0]), low, high, n_seeds=1, n=n)
    numbers = np.asarray(values, dtype=float)
    mean, std = float(numbers.mean()), float(numbers.std(ddof=1))
    return Estimate(mean, std=std, n_seeds=count, n=n)


def points(value: float) -> str:
    """Write a difference of fractions in points with its sign, "-" when missing."""
    return "-" if math.isnan(value) else f"{PERCENT * value:+.2f}"


def percent(value: float) -> str:
    """Write a fraction in percent with two decimals, "-" when missing."""
    return "-" if math.isnan(value) else f"{PERCENT * value:.2f}"


def number(value: float, digits: int) -> str:
    """Write a number that is no share, "-" when missing."""
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"
