"""What runs were found to be, seeds of one attack taken together: the union of run folders.

A run that lies in several places counts once, with everything that any of them knows. Nothing is
computed here but the worst case over seeds, for which the outcomes are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ltrobust.config import Run, stable_hash
from ltrobust.errors import Notice, UserError
from ltrobust.evaluation.metrics import worst_case
from ltrobust.results.digest import Digest, digest_of
from ltrobust.results.records import (
    EXTERNAL,
    AttackRecord,
    DataFacts,
    PlaceRecord,
    Provenance,
    RunRecord,
    TrainedRecord,
    TuningRecord,
)
from ltrobust.results.store import RunStore, SuiteStore

_NAMED = 3
SAME_ATTACK = ("attack", "eps", "test_protocol", "limit_test", "test_sha256", "library")


@dataclass(frozen=True)
class Member:
    """An attack with one seed, and where it lies."""

    record: AttackRecord
    store: RunStore


@dataclass(frozen=True)
class Evaluation:
    """One attack on one run.

    Attributes:
        attack_id: its id; several seeds are joined with "+".
        facts: its record, of several seeds the first's.
        settings: of the attack; with several seeds they hold `seeds` in place of `seed`.
        seconds: of all seeds; None where they were timed under several conditions.
        cpu_seconds: likewise.
        digest: counts; with several seeds of each image's worst case.
        members: one a seed, in their order.
    """

    attack_id: str
    facts: AttackRecord
    settings: dict[str, Any]
    seconds: float | None
    cpu_seconds: float | None
    digest: Digest
    members: tuple[Member, ...]

    @property
    def attack(self) -> str:
        """Name of the attack."""
        return self.facts.attack

    @property
    def eps(self) -> float:
        """Its radius."""
        return self.facts.eps

    @property
    def n(self) -> int:
        """Test images."""
        return self.digest.n

    def outcomes(self) -> pd.DataFrame | None:
        """Outcomes, one per test image; with several seeds each image's worst case.

        None where they are gone.

        Raises:
            UserError: a file is damaged.
        """
        return _outcomes(self.members)


def _outcomes(members: Sequence[Member]) -> pd.DataFrame | None:
    frames = [member.store.outcomes(member.record) for member in members]
    there = [frame for frame in frames if frame is not None]
    if len(there) < len(frames):
        return None
    return there[0] if len(there) == 1 else worst_case(there)


@dataclass(frozen=True)
class JudgedRun:
    """A run with all that was evaluated on it.

    Attributes:
        record: what it is.
        trained: how its training went; None before its end.
        place: what may change without changing results.
        evaluations: as they were made one after the other.
        flagged: names of the flagged reliability checks, None when the run has no report.
        judged: ids of the attacks that the report knows.
        lost: ids of the attacks whose outcomes are gone.
        stores: where it lies.
        tuning: of how many settings of its method it has one; None without `--select val`.
    """

    record: RunRecord
    trained: TrainedRecord | None
    place: PlaceRecord
    evaluations: tuple[Evaluation, ...]
    flagged: tuple[str, ...] | None
    judged: frozenset[str]
    lost: tuple[str, ...]
    stores: tuple[RunStore, ...]
    tuning: TuningRecord | None = None

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.record.run_id

    @property
    def run(self) -> Run | None:
        """What was trained; None for a foreign model."""
        return self.record.run if isinstance(self.record.run, Run) else None

    @property
    def recipe_name(self) -> str:
        """The recipe's name, `external` for a foreign model."""
        return EXTERNAL if self.run is None else self.run.recipe_name

    @property
    def method(self) -> str:
        """What tables call the run."""
        run = self.record.run
        return run.method if isinstance(run, Run) else self.place.name or run.label

    @property
    def data(self) -> DataFacts:
        """The training set."""
        return self.record.data

    @property
    def train_counts(self) -> list[int]:
        """Training images of each class."""
        return self.record.data.train_counts

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return self.record.data.class_names

    @property
    def provenance(self) -> Provenance:
        """Where the training began."""
        return self.record.provenance

    def checked(self, evaluation: Evaluation) -> bool:
        """Whether the reliability report knows an evaluation."""
        return self.flagged is not None and set(evaluation.attack_id.split("+")) <= self.judged

    def history(self) -> pd.DataFrame:
        """The learning curve; empty when there is none."""
        found = (store.history() for store in self.stores)
        return next((frame for frame in found if len(frame)), pd.DataFrame())

    def examples(self) -> pd.DataFrame:
        """A few attacked images; empty when there are none."""
        found = (store.examples() for store in self.stores)
        return next((frame for frame in found if len(frame)), pd.DataFrame())


def collect(directories: Iterable[Path]) -> list[JudgedRun]:
    """The runs of several suites' directories, each once, directory by directory.

    Raises:
        UserError: a file is damaged, or two directories contradict each other about a run.
    """
    return [read_run(*stores) for stores in places(directories)]


def places(directories: Iterable[Path]) -> list[tuple[RunStore, ...]]:
    """Where each run of several suites' directories lies, directory by directory.

    Raises:
        UserError: a run.json is damaged.
    """
    once: dict[Path, Path] = {}
    found: dict[str, list[RunStore]] = {}
    for path in directories:
        once.setdefault(path.resolve(), path)
    for path in once.values():
        for lost in SuiteStore(path).lost():
            warnings.warn(
                f"{lost} is left out: its run.json is gone; put it back, or delete the folder",
                Notice,
                stacklevel=2,
            )
        for run in SuiteStore(path).runs():
            found.setdefault(run.begun_record().run_id, []).append(run)
    return [tuple(stores) for stores in found.values()]


def read_run(*stores: RunStore, only: Collection[str] | None = None) -> JudgedRun:
    """Read one run from wherever it lies.

    Evaluations that differ in nothing but their settings' seed become one, where all outcomes are
    there; where some are not, each stands for itself no more and all are left out.

    Args:
        stores: places of the run, at least one.
        only: attack ids to leave it at, before seeds are taken together; default all.

    Raises:
        UserError: a file is damaged, or two places contradict each other.
    """
    record = stores[0].begun_record()
    members = _members(stores, only)
    for other in stores[1:] if members else ():
        _check_same_run(record, stores[0], other)
    families: dict[str, list[Member]] = {}
    for member in members.values():
        families.setdefault(_family(member.record), []).append(member)
    num_classes = len(record.data.train_counts)
    made = (_together(family, num_classes) for family in families.values())
    reports = [found for store in stores if (found := store.reliability()) is not None]
    flagged = [one.check for found in reports for one in found.findings if one.flagged]
    places = [store.place() for store in stores]
    lost = [
        attack_id
        for attack_id, member in members.items()
        if not member.store.has_outcomes(attack_id)
    ]
    return JudgedRun(
        record,
        next((t for store in stores if (t := store.training()) is not None), None),
        next((place for place in places if place != PlaceRecord()), places[0]),
        tuple(one for one in made if one is not None),
        tuple(dict.fromkeys(flagged)) if reports else None,
        frozenset(name for found in reports for name in found.judged),
        tuple(lost),
        stores,
        next((one for store in stores if (one := store.tuning()) is not None), None),
    )


def _check_same_run(record: RunRecord, store: RunStore, other: RunStore) -> None:
    """Refuse two places that mean different things by one run."""
    second = other.begun_record()
    if second.data.split_sha256 != record.data.split_sha256:
        raise _conflict(store, other, "were trained on different images")
    weights = [
        found.weights_sha256
        for one in (store, other)
        if (found := one.training()) is not None and found.weights_sha256 is not None
    ]
    if len(set(weights)) > 1:
        raise _conflict(
            store, other, f"have different weights ({weights[0][:8]}, {weights[1][:8]})"
        )


def _conflict(store: RunStore, other: RunStore, what: str) -> UserError:
    return UserError(
        f"{store.path} and {other.path} are the same run and {what}; leave one of the directories "
        "out"
    )


def _members(stores: Sequence[RunStore], only: Collection[str] | None) -> dict[str, Member]:
    """The attacks (`only` these) of all places, each once: from one with outcomes, if any has them.

    Raises:
        UserError: an attack has different outcomes in two places.
    """
    found: dict[str, Member] = {}
    for store in stores:
        for attack_id, record in store.attacks(only).items():
            known = found.setdefault(attack_id, Member(record, store))
            if known.record.outcomes_sha256 != record.outcomes_sha256:
                right = [sum(one.digest.right) for one in (known.record, record)]
                raise _conflict(
                    known.store,
                    store,
                    f"hold different outcomes of {attack_id} ({right[0]} and {right[1]} images "
                    "right)",
                )
            if not known.store.has_outcomes(attack_id) and store.has_outcomes(attack_id):
                found[attack_id] = Member(record, store)
    return dict(sorted(found.items(), key=lambda item: (item[1].record.made, item[0])))


def _family(record: AttackRecord) -> str:
    settings = {key: value for key, value in record.settings.items() if key != "seed"}
    return stable_hash(
        {**{name: getattr(record, name) for name in SAME_ATTACK}, "settings": settings}
    )


def _together(members: list[Member], num_classes: int) -> Evaluation | None:
    if len(members) == 1:
        (only,) = members
        facts = only.record
        return Evaluation(
            facts.attack_id,
            facts,
            facts.settings,
            facts.seconds,
            facts.cpu_seconds,
            facts.digest,
            (only,),
        )
    members = sorted(members, key=lambda member: member.record.settings.get("seed", 0))
    outcomes = _outcomes(members)
    if outcomes is None:
        return None
    settings = dict(members[0].record.settings)
    settings.pop("seed", None)
    settings["seeds"] = [member.record.settings.get("seed", 0) for member in members]
    return Evaluation(
        "+".join(member.record.attack_id for member in members),
        members[0].record,
        settings,
        *_seconds([member.record for member in members]),
        digest_of(outcomes, num_classes),
        tuple(members),
    )


def _seconds(records: Sequence[AttackRecord]) -> tuple[float | None, float | None]:
    """Wall and processor time of all seeds; None where they were timed under several conditions."""
    conditions = {
        (one.provenance.device_name, one.provenance.threads, one.provenance.git_commit)
        for one in records
    }
    if len(conditions) > 1:
        return None, None
    busy = [one.cpu_seconds for one in records if one.cpu_seconds is not None]
    return sum(one.seconds for one in records), sum(busy) if len(busy) == len(records) else None


def gaps(runs: Sequence[JudgedRun]) -> tuple[str, ...]:
    """A line about outcomes that are gone, where some are."""
    names: list[str] = []
    without: list[str] = []
    for run in runs:
        standing = {part for made in run.evaluations for part in made.attack_id.split("+")}
        for attack_id in run.lost:
            (names if attack_id in standing else without).append(f"{run.run_id} ({attack_id})")
    lines = []
    if names:
        lines.append(
            f"the outcomes of {_few(names)} are gone: their numbers stand, but nothing can be "
            "compared with them image by image"
        )
    if without:
        lines.append(
            f"the outcomes of {_few(without)} are gone, and the worst case over seeds cannot be "
            "taken without them: left out"
        )
    return tuple(lines)


def _few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
