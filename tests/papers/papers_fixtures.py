"""Stored results of an entry's runs, made up without training or data."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ltrobust.bench.plan import PlannedRun
from ltrobust.papers.entries import Scale, shipped_folder
from ltrobust.papers.reproduce import Job, make_jobs
from ltrobust.results.digest import digest_of, images_sha256, outcomes_sha256
from ltrobust.results.records import AttackRecord, DataFacts, Provenance, RunRecord, Versions, now
from ltrobust.results.store import SuiteStore

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STRENGTH = {"clean": 1.0, "fgsm": 0.65, "pgd20": 0.5, "pgd100": 0.49, "cw20": 0.47}
Chance = Callable[[PlannedRun, str, np.ndarray], np.ndarray]


def job(name: str, output: Path, scale: Scale = "cpu", folder: Path | None = None) -> Job:
    """One entry, planned on the CPU."""
    flags = {"output": output, "device": "cpu"}
    (made,) = make_jobs([name], folder or shipped_folder(), scale, flags)
    return made


def plausible(planned: PlannedRun, attack: str, labels: np.ndarray) -> np.ndarray:
    """Chance of each image to stand: falls with the class, the attack and the ratio."""
    help_for_tail = {"pgd-at": 0.0, "trades": 0.1}.get(planned.run.method, 0.35)
    ratio = planned.run.data.imbalance_ratio or 1
    fall = (0.6 - help_for_tail) * np.log10(ratio) / 2
    return np.clip(0.85 - fall * labels / 4, 0.05, 1) * STRENGTH.get(attack, 0.43)


def store_flags(store: SuiteStore, flagged: dict[str, str]) -> None:
    """Write a reliability report for every stored run: method to the check that is flagged."""
    for run in store.runs():
        method = run.run_id.rpartition("-")[0]
        checks = ("tiny-logits", "pgd-above-autoattack")
        said = {"value": None, "threshold": None, "explanation": "", "concerns": "all"}
        run.write_reliability(
            [{"check": one, "flagged": flagged.get(method) == one, **said} for one in checks],
            run.attack_ids(),
        )


def store_results(made: Job, output: Path, chance: Chance = plausible, n: int = 400) -> SuiteStore:
    """Write records, outcomes and history of every run of a job, as if it had been done."""
    store = SuiteStore(output)
    for plan in made.plans:
        for planned in plan.runs:
            _store_run(store, planned, chance, min(n, planned.test.limit or n))
    return store


ORIGIN = Provenance(
    versions=Versions(torch="2", ltrobust="0"),
    python="3",
    git_commit="",
    device="cpu",
    device_name="cpu",
    threads=1,
)


def _store_run(store: SuiteStore, planned: PlannedRun, chance: Chance, n: int) -> None:
    run = store.run(planned.run.run_id)
    data = DataFacts(
        class_names=list(CIFAR),
        train_counts=[int(500 * 10 ** (-c / 9)) for c in range(10)],
        imbalance_ratio=10.0,
        image_shape=[3, 32, 32],
        split_sha256="ab",
        source=None,
    )
    run.begin(
        RunRecord(
            run_id=planned.run.run_id,
            run=planned.run,
            overrides={},
            data=data,
            provenance=ORIGIN,
            made=now(),
        )
    )
    run.write_history(_history(planned))
    labels = np.arange(n) % 10
    there = run.attack_ids()
    for attack_id, spec in planned.attack_ids().items():
        if attack_id in there:
            continue
        rng = np.random.default_rng(zlib.crc32(f"{planned.run.run_id} {attack_id}".encode()))
        right = rng.random(n) < chance(planned, spec.name, labels)
        frame = pd.DataFrame(
            {
                "index": np.arange(n),
                "label": labels,
                "attack": spec.name,
                "attack_id": attack_id,
                "pred": np.where(right, labels, (labels + 1) % 10),
                "correct": right,
                "fell": np.where(right, "", spec.name),
            }
        )
        record = AttackRecord(
            run_id=planned.run.run_id,
            attack_id=attack_id,
            attack=spec.name,
            eps=spec.eps,
            settings=spec.settings(),
            library=spec.library,
            test_protocol=planned.test.protocol,
            limit_test=planned.test.limit,
            test_sha256=images_sha256(np.arange(n), labels),
            seconds=1.0,
            cpu_seconds=None,
            provenance=ORIGIN,
            digest=digest_of(frame, 10),
            outcomes_sha256=outcomes_sha256(frame),
            made=now(),
        )
        run.add_attack(record, frame)


def _history(planned: PlannedRun) -> list[dict[str, float]]:
    """A learning curve that overfits: the score rises and falls, the training's only rises."""
    epochs = planned.run.recipe.epochs
    rows = []
    for epoch in range(1, epochs + 1):
        done = epoch / epochs
        judged = planned.run.select != "last" and (planned.run.select == "best" or done >= 0.75)
        scores = {
            "val_acc": 0.4 + 0.2 * done if judged else float("nan"),
            "val_robust_acc": 0.3 * done * (1.5 - done) if judged else float("nan"),
        }
        row = {"epoch": epoch, "train_loss": 2 - done, "train_robust_acc": 0.2 + 0.3 * done}
        rows.append(row | (scores if planned.run.select != "last" else {}))
    return rows
