"""What a run's evaluations found, seeds of one attack taken together.

Reads a run's record, outcomes and reliability report and computes no accuracy. An evaluation counts
only when its outcomes are there for exactly the test images that the record names.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ltrobust.bench.store import RunStore, SuiteStore
from ltrobust.config import stable_hash
from ltrobust.evaluation.metrics import worst_case

SAME_ATTACK = ("attack", "eps", "test_protocol", "limit_test", "test_sha256", "library")


@dataclass(frozen=True)
class Evaluation:
    """One attack on one run.

    Attributes:
        attack_id: as in outcomes.parquet; several seeds are joined with "+".
        facts: as in run.json; with several seeds the settings hold `seeds` in place of `seed`.
        rows: outcomes, one per test image; with several seeds each image's worst case.
    """

    attack_id: str
    facts: dict[str, Any]
    rows: pd.DataFrame


@dataclass(frozen=True)
class JudgedRun:
    """A run's record with all that was evaluated on it.

    Attributes:
        record: run.json.
        evaluations: in the order of the record.
        flagged: names of the flagged reliability checks, None when the run has no report.
        lost: ids of the attacks in the record whose outcomes are gone.
    """

    record: dict[str, Any]
    evaluations: tuple[Evaluation, ...]
    flagged: tuple[str, ...] | None
    lost: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return str(self.record["run_id"])

    @property
    def train_counts(self) -> list[int]:
        """Training images of each class."""
        return list(self.record["data"]["train_counts"])

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return [str(name) for name in self.record["data"]["class_names"]]

    def checked(self, evaluation: Evaluation) -> bool:
        """Whether the reliability report knows an evaluation."""
        ids = evaluation.attack_id.split("+")
        judged = self.record.get("judged", ids)
        return self.flagged is not None and set(ids) <= set(judged)

    def clean(self, like: Evaluation) -> pd.DataFrame | None:
        """Outcomes without an attack on the same test images as another evaluation."""
        wanted = like.facts.get("test_sha256")
        return next(
            (
                one.rows
                for one in self.evaluations
                if one.facts["attack"] == "clean" and one.facts.get("test_sha256") == wanted
            ),
            None,
        )


def images_sha256(index: ArrayLike, labels: ArrayLike) -> str:
    """SHA-256 over index and label of test images, int64 little-endian."""
    both = np.stack([np.asarray(index), np.asarray(labels)]).astype("<i8")
    return hashlib.sha256(both.tobytes()).hexdigest()


def outcomes_there(run: RunStore) -> dict[str, dict[str, Any]]:
    """What a run's record says of the attacks whose outcomes are there, by attack id.

    They are when they hold every test image of the attack once and no other.

    Raises:
        UserError: a file is damaged.
    """
    outcomes = run.outcomes()
    return {
        attack_id: facts
        for attack_id, facts in run.read().get("evaluations", {}).items()
        if _whole(outcomes[outcomes["attack_id"] == attack_id], facts["test_sha256"])
    }


def _whole(rows: pd.DataFrame, sha: str) -> bool:
    """Whether outcomes are those of the test images with this checksum, in whatever order."""
    orders = (rows, rows.sort_values("index", kind="stable"))
    return any(images_sha256(one["index"], one["label"]) == sha for one in orders)


def read_suite(store: SuiteStore) -> list[JudgedRun]:
    """Read all runs of a suite."""
    return [read_run(run) for run in store.runs()]


def read_run(run: RunStore, only: Collection[str] | None = None) -> JudgedRun:
    """Read one run.

    Evaluations that differ in nothing but their settings' seed become one; those whose outcomes are
    gone are left out.

    Args:
        run: where the run lies.
        only: attack ids to leave it at, before seeds are taken together; default all.

    Raises:
        UserError: a file is damaged.
    """
    record = run.read()
    outcomes = run.outcomes()
    recorded, there = record.get("evaluations", {}), outcomes_there(run)
    families: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for attack_id, facts in there.items():
        if only is None or attack_id in only:
            families.setdefault(_family(facts), []).append((attack_id, facts))
    evaluations = tuple(_together(members, outcomes) for members in families.values())
    flagged = None
    if run.has_reliability:
        flagged = tuple(str(one["check"]) for one in run.reliability() if one["flagged"])
    lost = tuple(attack_id for attack_id in recorded if attack_id not in there)
    return JudgedRun(record, evaluations, flagged, lost)


def _family(facts: dict[str, Any]) -> str:
    settings = {k: v for k, v in facts["settings"].items() if k != "seed"}
    return stable_hash({**{name: facts.get(name) for name in SAME_ATTACK}, "settings": settings})


def _together(members: list[tuple[str, dict[str, Any]]], outcomes: pd.DataFrame) -> Evaluation:
    if len(members) == 1:
        ((attack_id, facts),) = members
        return Evaluation(attack_id, facts, outcomes[outcomes["attack_id"] == attack_id])
    members = sorted(members, key=lambda member: member[1]["settings"].get("seed", 0))
    ids = [attack_id for attack_id, _ in members]
    settings = dict(members[0][1]["settings"])
    settings.pop("seed", None)
    settings["seeds"] = [facts["settings"].get("seed", 0) for _, facts in members]
    facts = {
        **members[0][1],
        "settings": settings,
        "seconds": _seconds([facts for _, facts in members]),
    }
    rows = worst_case([outcomes[outcomes["attack_id"] == attack_id] for attack_id in ids])
    attack_id = "+".join(ids)
    return Evaluation(attack_id, facts, rows.assign(attack_id=attack_id))


def _seconds(members: list[dict[str, Any]]) -> float:
    """Time of all seeds together; NaN where they were timed under several conditions."""
    names = ("device_name", "threads", "git_commit")
    origins = [facts.get("provenance", {}) for facts in members]
    if len({tuple(origin.get(name) for name in names) for origin in origins}) > 1:
        return math.nan
    return float(sum(facts["seconds"] for facts in members))
