"""Metrics from outside: functions of what one attack's outcomes come to, registered under a name.

Each becomes a column of metrics.csv and of the tables that show scores, with mean and deviation
over seeds. Nothing is stored: a report computes them from the digests that are there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ltrobust.errors import UserError
from ltrobust.plugins import load_installed
from ltrobust.registry import Registry
from ltrobust.results.digest import Digest

MetricFunction = Callable[[Digest, Sequence[int]], float]
"""`metric(digest, train_counts)`: a number; nan where it is not defined. The digest counts, by
class, the images that stood (`right`) and the predictions; `train_counts` has the training images
of each class (C)."""
M = TypeVar("M", bound=MetricFunction)
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
RESERVED = ("gap", "label", "robust_error")
"""Beside the columns of metrics.csv, what tables have already."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Metric:
    """A metric and how it is read.

    Attributes:
        name: what tables call it.
        load: the function.
        better: whether more or less of it is better.
        low: its smallest value.
        high: its largest value.
    """

    name: str
    load: MetricFunction
    better: Literal["more", "less"]
    low: float
    high: float

    @property
    def column(self) -> str:
        """What CSV files call it."""
        return self.name.replace("-", "_")

    @property
    def share(self) -> bool:
        """Whether it is shown in percent, as accuracies are; else as it is."""
        return self.low >= -1 and self.high <= 1

    @property
    def meaning(self) -> str:
        """What it is, in a sentence for captions: the first line of the function's docstring."""
        lines = (self.load.__doc__ or "").strip().splitlines()
        return f"{self.name}: {lines[0].rstrip('.') if lines else ''}; {self.better} is better."

    def of(self, digest: Digest, train_counts: Sequence[int]) -> float:
        """Its value.

        Raises:
            UserError: the function fails, or gives no number of its range.
        """
        try:
            value = float(self.load(digest, train_counts))
        except Exception as error:  # anything that somebody's function may raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"metric {self.name} fails: {reason}") from error
        if not (math.isnan(value) or self.low - ROUNDING <= value <= self.high + ROUNDING):
            raise UserError(
                f"metric {self.name} gives {value:g}; its range is {self.low:g} to {self.high:g}"
            )
        return value


METRICS: Registry[Metric] = Registry("metric", lambda: load_installed("ltrobust.metrics"))


def register_metric(
    name: str, *, better: Literal["more", "less"], low: float = 0.0, high: float = 1.0
) -> Callable[[M], M]:
    """Register a metric; one whose range lies in -1 .. 1 is shown in percent.

    Raises:
        UserError: the name is taken, by a column or another metric, or cannot be one.
    """
    check_metric_name(name)
    if better not in ("more", "less"):
        raise UserError(f"metric '{name}': better must be 'more' or 'less', got {better!r}")
    if not low < high:
        raise UserError(f"metric '{name}': its range {low:g} to {high:g} holds no numbers")

    def decorate(function: M) -> M:
        METRICS.add(name, Metric(name, function, better, low, high))
        return function

    return decorate


def check_metric_name(name: str) -> None:
    """Raise UserError for a name that no metric from outside can have."""
    from ltrobust.results.frames import METRICS_COLUMNS  # which has these columns made

    if not NAME.fullmatch(name):
        raise UserError(f"metric name '{name}' must be of small letters, digits and '-'")
    if name.replace("-", "_") in (*METRICS_COLUMNS, *RESERVED):
        raise UserError(f"metric name '{name}' is that of a column there is; choose another")


def own_metrics(columns: Container[str] | None = None) -> list[Metric]:
    """All metrics from outside, or those that have a column here, in the order of their names."""
    found = [METRICS.get(name) for name in sorted(METRICS)]
    return [metric for metric in found if columns is None or metric.column in columns]
