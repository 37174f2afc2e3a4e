"""Run directories with outcomes made up by a test, and no training behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.config import DataSpec, Recipe, Run, TrainingAttack
from ltrobust.results.digest import digest_of, images_sha256, outcomes_sha256
from ltrobust.results.records import (
    AttackRecord,
    DataFacts,
    Provenance,
    RunRecord,
    TrainedRecord,
    Versions,
)
from ltrobust.results.store import RunStore
from ltrobust.training.schedule import UNIFIED

COUNTS = (50, 20, 10, 5)
ORIGIN = Provenance(
    versions=Versions(torch="2", ltrobust="0"),
    python="3",
    git_commit="",
    device="cpu",
    device_name="cpu",
    threads=1,
)
RECIPE = Recipe(
    epochs=1,
    batch_size=8,
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=0.0,
    schedule=UNIFIED,
    attack=TrainingAttack(eps=0.1, step_size=0.025, steps=2),
)


def attack(
    name: str = "pgd2",
    *,
    seed: int = 0,
    correct: Sequence[bool] = (),
    clean: np.ndarray | None = None,
    first: int = 100,
    **settings: Any,
) -> dict[str, Any]:
    """One evaluation with its verdicts: image i has label i % 4, a wrong prediction is the next.

    `clean` says which images are right without the attack; default all.
    """
    right = np.array(correct, dtype=bool)
    natural = ~right if name == "clean" else np.zeros_like(right) if clean is None else ~clean
    index = np.arange(len(right))
    facts = {
        "attack": name,
        "eps": 0.0 if name == "clean" else 0.1,
        "settings": {"steps": 2, "seed": seed, **settings},
        "library": "ltrobust",
        "test_protocol": "balanced",
        "limit_test": None,
        "test_sha256": images_sha256(first + index, index % 4),
        "seconds": 1.5,
        "cpu_seconds": None,
    }
    rows = pd.DataFrame(
        {
            "index": first + index,
            "label": index % 4,
            "attack": name,
            "attack_id": f"{name}-{'-'.join(map(str, facts['settings'].values()))}",
            "pred": np.where(right, index % 4, (index + 1 + seed) % 4),
            "correct": right,
            "fell": np.where(natural, "clean", np.where(right, "", name)),
        }
    )
    return {"facts": facts, "rows": rows}


def run_of(method: str, seed: int = 0) -> Run:
    """The settings of a run that nobody trained."""
    return Run(
        method=method,
        data=DataSpec(name="digits-lt", imbalance_ratio=10.0),
        arch="small-cnn",
        recipe_name="unified",
        recipe=RECIPE,
        seed=seed,
        precision="fp32",
    )


def write_run(
    suite: Path,
    method: str,
    attacks: Sequence[dict[str, Any]],
    *,
    seed: int = 0,
    counts: Sequence[int] = COUNTS,
    names: Sequence[str] = ("a", "b", "c", "d"),
) -> RunStore:
    """Write the records of a run with its attacks, in their order."""
    run = run_of(method, seed)
    store = RunStore(suite / "runs" / run.run_id)
    store.begin(
        RunRecord(
            run_id=run.run_id,
            run=run,
            overrides={},
            data=DataFacts(
                class_names=list(names),
                train_counts=list(counts),
                imbalance_ratio=10.0,
                image_shape=[1, 8, 8],
                split_sha256="ab",
                source=None,
            ),
            provenance=ORIGIN,
            made=time(0),
        )
    )
    store.finish(trained_record(run.run_id), None)
    for place, one in enumerate(attacks, 1):
        add_attack(store, one, place)
    return store


def finding(check: str, flagged: bool) -> dict[str, Any]:
    """One reliability check."""
    said = {"value": None, "threshold": None, "explanation": "", "concerns": "all"}
    return {"check": check, "flagged": flagged, **said}


def trained_record(run_id: str) -> TrainedRecord:
    """How the training went that never was."""
    return TrainedRecord(
        run_id=run_id,
        train_seconds=None,
        train_cpu_seconds=None,
        parameters=10,
        peak_memory_bytes=None,
        checkpoint="epoch 1",
        base=None,
        fine_tuning=None,
        threads=1,
        earlier_threads=[],
        weights_sha256=None,
        made=time(0),
    )


def add_attack(store: RunStore, one: dict[str, Any], place: int = 1, classes: int = 4) -> None:
    """Add what `attack` made up to a run."""
    rows = one["rows"]
    record = AttackRecord(
        run_id=store.run_id,
        attack_id=rows["attack_id"].iloc[0],
        **one["facts"],
        provenance=ORIGIN,
        digest=digest_of(rows, classes),
        outcomes_sha256=outcomes_sha256(rows),
        made=time(place),
    )
    store.add_attack(record, rows)


def time(place: int) -> str:
    """A time, the later the larger."""
    return f"2026-01-01T00:{place // 60:02}:{place % 60:02}.000000+00:00"
