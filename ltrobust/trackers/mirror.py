"""Carries what is new in a suite's files to trackers; the one place that knows both sides.

It reads the files that a report is made from and is asked to look whenever progress is reported, so
that neither the trainer nor the evaluation knows of trackers.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from ltrobust.errors import Notice, UserError
from ltrobust.results.collect import read_run
from ltrobust.results.custom import own_metrics
from ltrobust.results.frames import metrics_table
from ltrobust.results.store import RunStore, SuiteStore

SCORES = ("accuracy", "balanced_accuracy", "head", "medium", "tail", "worst_class")
WATCHED = ("history.csv", "run.json", "attacks")


class Tracker(Protocol):
    """Where results are shown. Everything is told once in the life of a tracker."""

    def begin(self, run_id: str, config: Mapping[str, Any]) -> None:
        """A run is there, with its settings as flat names."""

    def epoch(self, run_id: str, epoch: int, numbers: Mapping[str, float]) -> None:
        """The learning curve has a further row; epochs count from 1."""

    def attack(self, run_id: str, attack: str, numbers: Mapping[str, float]) -> None:
        """An attack has been evaluated: fractions in [0, 1]."""

    def figures(self, files: Sequence[Path]) -> None:
        """The suite's figures as PNG files."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclass
class _Told:
    """What trackers know of a run."""

    seen: tuple[tuple[int, int], ...] = ()
    epochs: int = 0
    attacks: frozenset[str] = frozenset()


class Mirror:
    """Shows a suite's files in trackers.

    Args:
        suite: the suite's directory.
        trackers: where to show it.
        only: the runs to show; default all that are there.
    """

    def __init__(
        self, suite: Path, trackers: Sequence[Tracker], only: Collection[str] | None = None
    ) -> None:
        self._store = SuiteStore(suite)
        self._trackers = list(trackers)
        self._only = only
        self._told: dict[str, _Told] = {}

    @property
    def runs(self) -> list[str]:
        """Ids of the runs that have been told."""
        return list(self._told)

    def sync(self, *, strict: bool = False) -> None:
        """Tell what is new. Trouble becomes a `Notice` unless `strict`; the work goes on."""
        if not self._trackers:
            return
        try:
            for run in self._store.runs():
                if self._only is None or run.run_id in self._only:
                    self._tell(run)
        except UserError:  # a damaged file: who works with it will tell
            if strict:
                raise
        except Exception as error:
            self._give_up(error, strict)

    def close(self) -> None:
        """Tell what is left and the figures, then end."""
        self.sync()
        figures = sorted((self._store.path / "figures").glob("*.png"))
        try:
            for tracker in self._trackers:
                tracker.figures(figures)
                tracker.close()
        except Exception as error:
            self._give_up(error, strict=False)

    def _give_up(self, error: Exception, strict: bool) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if strict:
            raise UserError(f"trackers cannot be written: {reason}") from error
        self._trackers = []
        warnings.warn(
            f"trackers are left out from here on ({reason}); all results are in {self._store.path}",
            Notice,
            stacklevel=2,
        )

    def _tell(self, run: RunStore) -> None:
        files = [run.path / name for name in WATCHED]
        seen = tuple((f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.exists())
        told = self._told.get(run.run_id, _Told())
        if seen == told.seen:
            return
        record = run.begun_record()
        if run.run_id not in self._told:
            for tracker in self._trackers:
                tracker.begin(run.run_id, flat(record.run.model_dump(mode="json")))
        rows = run.history().to_dict("records")
        for row in rows[told.epochs :]:
            numbers = {str(k): float(v) for k, v in row.items() if k != "epoch" and pd.notna(v)}
            for tracker in self._trackers:
                tracker.epoch(run.run_id, int(row["epoch"]), numbers)
        attacks = self._tell_attacks(run, told.attacks)
        self._told[run.run_id] = _Told(seen, len(rows), attacks)

    def _tell_attacks(self, run: RunStore, known: frozenset[str]) -> frozenset[str]:
        if set(run.attack_ids()) <= known:
            return known
        metrics, _ = metrics_table([read_run(run)])
        names = _names(metrics)
        for name, row in zip(names, metrics.to_dict("records"), strict=True):
            if row["attack_id"] not in known:
                scores = (*SCORES, *(metric.column for metric in own_metrics()))
                numbers = {score: float(row[score]) for score in scores if pd.notna(row[score])}
                for tracker in self._trackers:
                    tracker.attack(run.run_id, name, numbers)
        return known | set(metrics["attack_id"])


def _names(metrics: pd.DataFrame) -> list[str]:
    """Attacks by name; with their radius and id where a run has several of one name."""
    several = metrics["attack"].duplicated(keep=False)
    ends = metrics["eps"].map("-eps{:.4g}".format) + "-" + metrics["attack_id"].str[-4:]
    return list(metrics["attack"] + ends.where(several, ""))


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one level: `{"recipe": {"lr": 0.1}}` becomes `{"recipe.lr": 0.1}`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found
