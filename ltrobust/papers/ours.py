"""Our side of an entry: the runs its suites plan, and numbers from their stored records.

A number is looked up by method, ratio and attack in the entry's suites, in their order; only the
evaluations that a suite plans are read, so that evaluations on different test images never mix.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.config import Run
from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import mean_interval
from ltrobust.papers.entries import Variant
from ltrobust.report.estimate import MISSING, Estimate, over_seeds
from ltrobust.results.collect import Evaluation, JudgedRun, read_run
from ltrobust.results.store import SuiteStore

LOOKED_AT = {"clean": "val_acc", "pgd20": "val_robust_acc"}
"""Columns of history.csv in which a run that chooses on the test set keeps its scores there."""


@dataclass(frozen=True)
class Found:
    """One evaluation of one of our runs.

    Attributes:
        planned: the run and its attacks.
        judged: what is stored about it.
        evaluation: what the attack found.
        suite: number of the suite that plans it.
    """

    planned: PlannedRun
    judged: JudgedRun
    evaluation: Evaluation
    suite: int

    @property
    def run(self) -> Run:
        """The run's settings."""
        return self.planned.run


@dataclass(frozen=True)
class Measured:
    """A number of ours.

    Attributes:
        estimate: over the seeds, as in every table; a fraction. `n` counts the test images that the
            metric is made of.
        test_protocol: of the test set.
        found: the evaluations behind it, one a seed.
    """

    estimate: Estimate
    test_protocol: str = ""
    found: tuple[Found, ...] = ()

    @property
    def value(self) -> float:
        """The number; NaN where there is none."""
        return self.estimate.value

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval, see `Estimate.interval`."""
        return self.estimate.interval

    @property
    def n(self) -> int:
        """Test images that count."""
        return self.estimate.n

    @property
    def n_seeds(self) -> int:
        """Number of training seeds."""
        return self.estimate.n_seeds

    @property
    def runs(self) -> list[Run]:
        """The runs behind it."""
        return [one.run for one in self.found]


UNMEASURED = Measured(MISSING)


class Ours:
    """The stored runs of an entry's plans.

    Args:
        plans: one a suite, in the entry's order.
        store: where the runs lie; runs that are missing are not found, and nothing fails.
    """

    def __init__(self, plans: Sequence[Plan], store: SuiteStore) -> None:
        self.plans = tuple(plans)
        self._store = store
        self._found: list[Found] = []
        self._history: dict[str, pd.DataFrame] = {}
        for number, plan in enumerate(plans):
            for planned in plan.runs:
                self._read(planned, number)

    def _read(self, planned: PlannedRun, suite: int) -> None:
        store = self._store.run(planned.run.run_id)
        self._history[planned.run.run_id] = store.history()
        ids = planned.attack_ids()
        if not ids.keys() & set(store.attack_ids()):
            return
        judged = read_run(store, only=ids.keys())
        for evaluation in judged.evaluations:
            self._found.append(Found(planned, judged, evaluation, suite))

    def find(
        self, variant: Variant, ratio: float | None, attack: str, suite: int | None = None
    ) -> list[Found]:
        """Evaluations of a variant, one a seed, all of the first suite that has it (or of `suite`).

        Args:
            variant: the run; fields that are None may be anything.
            ratio: imbalance ratio; None may be anything.
            attack: name.

        Raises:
            UserError: a suite has several evaluations of one seed that fit, so that none of them
                is the one that is meant.
        """
        matching = [
            found
            for found in self._found
            if _is(found.run, variant, ratio) and found.evaluation.attack == attack
        ]
        suites = [found.suite for found in matching if suite in (None, found.suite)]
        chosen = [found for found in matching if suites and found.suite == suites[0]]
        _check_one_a_seed(chosen, variant, attack)
        return chosen

    def planned(self, variant: Variant, ratio: float | None) -> list[Run]:
        """The runs a variant stands for, whether or not they were done."""
        runs = [planned.run for plan in self.plans for planned in plan.runs]
        return [run for run in runs if _is(run, variant, ratio)]

    def measure(
        self,
        variant: Variant,
        ratio: float | None,
        attack: str,
        metric: str,
        suite: int | None = None,
    ) -> Measured | None:
        """A number of a variant; None when it was not measured.

        Args:
            metric: as `published.Value.metric`.
        """
        found = self.find(variant, ratio, attack, suite)
        if not found:
            return None
        if variant.epoch == "last":
            return self._last_epoch(found, attack, metric)
        strata = [strata_of(one, metric) for one in found]
        if any(part.empty for part in strata):
            return None
        return _measured(found, [mean_share(part) for part in strata], strata)

    def history(self, variant: Variant) -> pd.DataFrame:
        """The learning curve of a variant's first run; empty when there is none."""
        for run in self.planned(variant, None):
            if len(self._history[run.run_id]):
                return self._history[run.run_id]
        return pd.DataFrame()

    def train_counts(self, classes: Sequence[str]) -> list[int]:
        """Training images of these classes in the first run that is there; [] without any."""
        for found in self._found:
            places = classes_of(f"mean:{','.join(classes)}".casefold(), found.judged.class_names)
            if places is not None:
                return [found.judged.train_counts[place] for place in places]
        return []

    def train_sizes(self) -> list[int]:
        """Training images of the runs that are there, each number once, increasing."""
        return sorted({sum(found.judged.train_counts) for found in self._found})

    def test_sizes(self, attacks: Collection[str]) -> dict[str, list[int]]:
        """Test images by attack: of each run's first suite that has it, each number once."""
        first: dict[tuple[str, str], Found] = {}
        for found in self._found:
            first.setdefault((found.run.run_id, found.evaluation.attack), found)
        return {
            attack: sorted({f.evaluation.n for (_, own), f in first.items() if own == attack})
            for attack in attacks
            if any(own == attack for _, own in first)
        }

    def _last_epoch(self, found: list[Found], attack: str, metric: str) -> Measured | None:
        """What a run that keeps its best epoch on the test set scored there after the last one."""
        column = LOOKED_AT.get(attack)
        if column is None or metric != "accuracy":
            return None
        if any(one.run.select != "best-on-test" for one in found):
            return None
        histories = [self._history[one.run.run_id] for one in found]
        if any(history.empty or column not in history for history in histories):
            return None
        values = [float(history[column].iloc[-1]) for history in histories]
        if any(math.isnan(value) for value in values):
            return None
        n = found[0].evaluation.n
        strata = [pd.DataFrame({"right": [round(v * n)], "n": [n]}) for v in values]
        return _measured(found, values, strata)


def strata_of(found: Found, metric: str) -> pd.DataFrame:
    """Rows of `right` and `n` of which a metric is the mean share; empty when it has no images.

    One row for "accuracy", else one a class; classes without test images are left out of
    "balanced", and make the mean over named classes empty.
    """
    digest = found.evaluation.digest
    counted = pd.DataFrame({"right": digest.right, "n": digest.tested})
    frame = rows_of(counted, metric, found.judged.class_names)
    known = frame[frame["n"] > 0]
    return known if metric == "balanced" or len(known) == len(frame) else known.iloc[:0]


def mean_share(strata: pd.DataFrame) -> float:
    """A metric from `strata_of`; NaN without images."""
    return float((strata["right"] / strata["n"]).mean())


def rows_of(classes: pd.DataFrame, metric: str, names: Sequence[str]) -> pd.DataFrame:
    """The rows that a metric is made of, from counts with a row a class: one for "accuracy"."""
    if metric == "accuracy":
        return classes.sum().to_frame().T
    return classes if metric == "balanced" else classes.iloc[classes_of(metric, names) or []]


def classes_of(metric: str, names: Sequence[str]) -> list[int] | None:
    """Classes of a metric such as "mean:dog,frog"; None when one of them is not there."""
    known = {name.casefold(): place for place, name in enumerate(names)}
    wanted = metric.partition(":")[2].split(",")
    return [known[name] for name in wanted] if all(name in known for name in wanted) else None


def _is(run: Run, variant: Variant, ratio: float | None) -> bool:
    return (
        run.method == variant.method
        and variant.augment in (None, run.recipe.augment)
        and variant.select in (None, run.select)
        and ratio in (None, run.data.imbalance_ratio)
    )


def _check_one_a_seed(found: Sequence[Found], variant: Variant, attack: str) -> None:
    """Refuse several evaluations of one seed: their mean would pass for one over seeds."""
    by_seed: dict[int, list[Found]] = {}
    for one in found:
        by_seed.setdefault(one.run.seed, []).append(one)
    for seed, same in by_seed.items():
        if len(same) < 2:
            continue
        ratios = {one.run.data.imbalance_ratio for one in same}
        if len(ratios) > 1:
            hint = f"they differ in the imbalance ratio ({_listed(ratios)}): say which is meant"
        elif len({one.run.run_id for one in same}) > 1:
            hint = "their runs differ: say augment or select, or put them into suites of their own"
        else:
            eps = {one.evaluation.eps for one in same}
            settings = f"eps {_listed(eps)}" if len(eps) > 1 else "the attack's settings"
            hint = f"they differ in {settings}: put them into suites of their own"
        raise UserError(
            f"suite {same[0].suite + 1} of the entry has {len(same)} evaluations of "
            f"{variant.label} under {attack} with seed {seed}; {hint}"
        )


def _listed(numbers: Iterable[float | None]) -> str:
    return ", ".join(f"{number:g}" for number in sorted(number or 0.0 for number in numbers))


def _measured(
    found: Sequence[Found], values: Sequence[float], strata: Sequence[pd.DataFrame]
) -> Measured:
    right, n = strata[0]["right"].to_numpy(float), strata[0]["n"].to_numpy(float)
    estimate = over_seeds(values, *mean_interval(right, n), int(n.sum()))
    return Measured(estimate, found[0].evaluation.facts.test_protocol, tuple(found))
