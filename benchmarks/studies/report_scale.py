"""How a report grows with its runs: seconds, memory and the size of its page.

Run folders as a bench leaves them, with outcomes made up: up to 100 settings with ten classes and
five attacks, half of the settings with two seeds a method. Each size is reported in a process of
its own as `ltrobust report` does it, after one run was added to an earlier report: everything is
read, tables, CSV files and page are made, figures are drawn of the setting that changed. The
earlier report's figures are stand-ins. No model is involved.

    OMP_NUM_THREADS=1 python benchmarks/studies/report_scale.py --json report_scale.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from ltrobust.bench.reports import build_report, results_of, write_report
from ltrobust.config import DataSpec, Recipe, Run, TrainingAttack
from ltrobust.results.collect import collect
from ltrobust.results.digest import digest_of, images_sha256, outcomes_sha256
from ltrobust.results.records import (
    AttackRecord,
    DataFacts,
    Provenance,
    RunRecord,
    TrainedRecord,
    Versions,
)
from ltrobust.results.store import SuiteStore
from ltrobust.training.schedule import UNIFIED

SIZES = (300, 1_000, 3_000)
IMAGES = {300: 1_000, 1_000: 10_000, 3_000: 10_000}
SETTINGS = 100
EPOCHS = 30
CLASSES = 10
ATTACKS = {"clean": 1.0, "pgd20": 0.55, "cw20": 0.52, "aa-apgd": 0.49, "autoattack": 0.48}
AXES: Mapping[str, Sequence[Any]] = {
    "ratio": (10.0, 20.0, 50.0, 100.0, 200.0),
    "arch": ("resnet18", "wrn-34-10", "preact-resnet18", "small-cnn", "resnet8"),
    "recipe": ("unified", "paper"),
    "dataset": ("cifar10-lt", "svhn-lt"),
}
"""What settings differ in; their product is the most settings that there are."""
RECIPE = Recipe(
    epochs=EPOCHS,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule=UNIFIED,
    attack=TrainingAttack(eps=8 / 255, step_size=2 / 255, steps=10),
)
ORIGIN = Provenance(
    versions=Versions(torch="2", ltrobust="0"),
    python="3",
    git_commit="0" * 40,
    device="cpu",
    device_name="cpu",
    threads=1,
)
MADE = "2026-01-01T00:00:00.000000+00:00"


@dataclass(frozen=True)
class Measured:
    """What one report took.

    Attributes:
        seconds: reading, tables (with paired tests over images) and the writing of all files.
        page_mebibytes: of the page.
    """

    runs: int
    settings: int
    images: int
    cpu_seconds: float
    seconds: float
    reading_seconds: float
    tables_seconds: float
    writing_seconds: float
    peak_mebibytes: float
    page_mebibytes: float


def write_runs(suite: SuiteStore, runs: range, settings: int, images: int) -> None:
    """Make up runs, shared out evenly over settings, each with all attacks on the same images."""
    for number, run in zip(runs, _runs(runs, settings), strict=True):
        rng = np.random.default_rng(number)
        store = suite.run(run.run_id)
        store.begin(_record(run))
        store.write_history(_history(rng))
        store.finish(_trained(run.run_id), None)
        for record, outcomes in _attacks(run.run_id, images, rng):
            store.add_attack(record, outcomes)


def _runs(runs: range, settings: int) -> Iterator[Run]:
    choices = list(itertools.islice(itertools.product(*AXES.values()), settings))
    for number in runs:
        turn, place = divmod(number, settings)
        ratio, arch, recipe, dataset = choices[place]
        method, seed = divmod(turn, 2) if place % 2 else (turn, 0)
        yield Run(
            method=f"method-{method:03}",
            data=DataSpec(name=dataset, imbalance_ratio=ratio),
            arch=arch,
            recipe_name=recipe,
            recipe=RECIPE,
            seed=seed,
            precision="bf16",
        )


def _record(run: Run) -> RunRecord:
    ratio = run.data.imbalance_ratio or 1.0
    return RunRecord(
        run_id=run.run_id,
        run=run,
        overrides={},
        data=DataFacts(
            class_names=[f"class {index}" for index in range(CLASSES)],
            train_counts=[int(5000 * ratio ** (-c / (CLASSES - 1))) for c in range(CLASSES)],
            imbalance_ratio=ratio,
            image_shape=[3, 32, 32],
            split_sha256="ab" * 32,
            source=None,
        ),
        provenance=ORIGIN,
        made=MADE,
    )


def _trained(run_id: str) -> TrainedRecord:
    return TrainedRecord(
        run_id=run_id,
        train_seconds=600.0,
        train_cpu_seconds=600.0,
        parameters=11_000_000,
        peak_memory_bytes=2_000_000_000,
        checkpoint=f"epoch {EPOCHS}",
        base=None,
        fine_tuning=None,
        threads=1,
        earlier_threads=[],
        weights_sha256=None,
        made=MADE,
    )


def _attacks(
    run_id: str, images: int, rng: np.random.Generator
) -> Iterator[tuple[AttackRecord, pd.DataFrame]]:
    index = np.arange(images)
    label = index % CLASSES
    skill = np.linspace(0.9, 0.3, CLASSES)[label] * rng.uniform(0.8, 1.0)
    luck = rng.random(images)
    natural = luck < skill
    sha = images_sha256(index, label)
    for attack, strength in ATTACKS.items():
        right = luck < skill * strength
        attack_id = f"{attack}-id"
        pred = np.where(right, label, (label + rng.integers(1, CLASSES, images)) % CLASSES)
        fell = np.where(~natural, "clean", np.where(right, "", attack))
        facts = {"index": index, "label": label, "attack": attack, "attack_id": attack_id}
        outcomes = pd.DataFrame({**facts, "pred": pred, "correct": right, "fell": fell})
        record = AttackRecord(
            run_id=run_id,
            attack_id=attack_id,
            attack=attack,
            eps=0.0 if attack == "clean" else 8 / 255,
            settings={"norm": "Linf", "seed": 0},
            library="ltrobust",
            test_protocol="balanced",
            limit_test=None,
            test_sha256=sha,
            seconds=10.0,
            cpu_seconds=10.0,
            provenance=ORIGIN,
            digest=digest_of(outcomes, CLASSES),
            outcomes_sha256=outcomes_sha256(outcomes),
            made=MADE,
        )
        yield record, outcomes


def _history(rng: np.random.Generator) -> list[dict[str, float]]:
    done = np.linspace(0, 1, EPOCHS)
    noise = rng.normal(0, 0.01, (2, EPOCHS))
    return [
        {
            "epoch": epoch + 1,
            "train_loss": 2.3 - done[epoch] + noise[0, epoch],
            "train_robust_acc": 0.5 * done[epoch] + noise[1, epoch],
            "val_robust_acc": 0.4 * done[epoch],
        }
        for epoch in range(EPOCHS)
    ]


def report_without_figures(suite: SuiteStore) -> None:
    """Write a report whose figures are stand-ins."""
    with (
        mock.patch("ltrobust.report.print_chart", lambda chart, look: {chart.name: None}),
        mock.patch("ltrobust.report.figure_bytes", return_value=b"-"),
    ):
        build_report(suite)


def measure(suite: SuiteStore, runs: int, settings: int, images: int) -> Measured:
    """Report once, as `build_report` does it."""
    computed, started = time.process_time(), time.perf_counter()
    found = collect([suite.path])
    read = time.perf_counter()
    results = results_of(found)
    made = time.perf_counter()
    write_report(suite, results)
    written = time.perf_counter()
    return Measured(
        runs,
        settings,
        images,
        time.process_time() - computed,
        written - started,
        read - started,
        made - read,
        written - made,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        (suite.path / "index.html").stat().st_size / 2**20,
    )


def _measured(folder: Path, runs: int, settings: int) -> dict[str, Any]:
    """Make up runs, report all but one, then all in a process of its own."""
    images, suite = IMAGES.get(runs, 1_000), SuiteStore(folder)
    write_runs(suite, range(runs - 1), settings, images)
    report_without_figures(suite)
    write_runs(suite, range(runs - 1, runs), settings, images)
    command = [sys.executable, __file__, "--one", str(folder)]
    command += ["--runs", str(runs), "--settings", str(settings)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured: dict[str, Any] = json.loads(out.splitlines()[-1])
    return measured


def main() -> None:
    """Measure every size and show what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--runs", type=int, nargs="+", default=SIZES)
    parser.add_argument("--settings", type=int, default=SETTINGS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        (runs,) = given.runs
        images = IMAGES.get(runs, 1_000)
        print(json.dumps(asdict(measure(SuiteStore(given.one), runs, given.settings, images))))
        return
    found = []
    for runs in given.runs:
        with tempfile.TemporaryDirectory() as folder:
            found.append(_measured(Path(folder), runs, given.settings))
        told = {name: round(value, 1) for name, value in found[-1].items()}
        print(", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in told.items()))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
