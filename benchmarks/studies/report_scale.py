"""How a report grows with its runs: seconds, memory and the size of its page.

Synthetic tables as a report reads them, of up to 100 settings with ten classes and five attacks,
half of the settings with two seeds a method. Each size is reported in a process of its own: tables,
CSV files and page of all settings, figures of those that changed (one). No model is involved.

    OMP_NUM_THREADS=1 python benchmarks/studies/report_scale.py --json report_scale.json
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.report import Rendered, figure_digests, render_board
from ltrobust.report.board import Board, make_board
from ltrobust.report.groups import comparable_groups
from ltrobust.report.page import board_page

SIZES = (300, 1_000, 3_000)
IMAGES = {300: 1_000, 1_000: 10_000, 3_000: 10_000}
SETTINGS = 100
EPOCHS = 30
ATTACKS = {"clean": 1.0, "pgd20": 0.55, "cw20": 0.52, "aa-apgd": 0.49, "autoattack": 0.48}
METHODS = (
    *("at-bsl", "pgd-at", "robal-r", "taet", "trades", "robal-n", "reat", "cgr", "mart", "he"),
    *("las-at", "adt", "gairat", "mma", "avmixup", "cfol", "plain", "trades-bsl", "he-trades"),
)
AXES: Mapping[str, Sequence[Any]] = {
    "imbalance_ratio": (10.0, 20.0, 50.0, 100.0, 200.0),
    "arch": ("resnet18", "wrn-34-10", "preact-resnet18", "small-cnn", "resnet8"),
    "recipe": ("unified", "paper"),
    "dataset": ("cifar10-lt", "svhn-lt"),
}
"""What settings differ in; their product is the most settings that there are."""


@dataclass(frozen=True)
class Tables:
    """What a report is made of, by the names of `ltrobust.report.render`."""

    metrics: pd.DataFrame
    per_class: pd.DataFrame
    histories: dict[str, pd.DataFrame]
    comparisons: pd.DataFrame
    confusion: pd.DataFrame


@dataclass(frozen=True)
class Measured:
    """What one report took.

    Attributes:
        seconds: board, tables, CSV files, page and the figures of one changed setting.
        page_mebibytes: of which plotly's bundle is 4.6.
    """

    runs: int
    settings: int
    images: int
    cpu_seconds: float
    seconds: float
    board_seconds: float
    files_seconds: float
    page_seconds: float
    csv_seconds: float
    peak_mebibytes: float
    page_mebibytes: float


def synthetic(
    runs: int, settings: int, images: int = 1_000, classes: int = 10, epochs: int = EPOCHS
) -> Tables:
    """Make up the tables of `runs` runs, shared out evenly over `settings` settings."""
    rng = np.random.default_rng(0)
    choices = list(itertools.islice(itertools.product(*AXES.values()), settings))
    metrics: list[dict[str, Any]] = []
    blocks: list[pd.DataFrame] = []
    counts: list[pd.DataFrame] = []
    histories = {}
    for number in range(runs):
        place = number % settings
        setting = dict(zip(AXES, choices[place], strict=True))
        turn = number // settings
        method, seed = (turn // 2, turn % 2) if place % 2 else (turn, 0)
        name = METHODS[method] if method < len(METHODS) else f"method-{method:03}"
        run = hashlib.sha256(f"{number}".encode()).hexdigest()[:12]
        common = {"run_id": run, "method": name, "seed": seed, **setting}
        histories[run] = _history(epochs, rng)
        for attack, strength in ATTACKS.items():
            right = rng.binomial(images // classes, np.linspace(0.9, 0.3, classes) * strength)
            accuracy = right * classes / images
            metrics.append({**common, **_metric_row(attack, accuracy, images)})
            blocks.append(_class_rows(common, attack, accuracy, images, setting["imbalance_ratio"]))
            counts.append(_confusion_rows(run, name, attack, right, images // classes))
    frame = pd.DataFrame(metrics)
    return Tables(
        frame,
        pd.concat(blocks, ignore_index=True),
        histories,
        _comparisons(frame, rng),
        pd.concat(counts, ignore_index=True),
    )


def _metric_row(attack: str, accuracy: np.ndarray, images: int) -> dict[str, Any]:
    third = max(1, round(len(accuracy) / 3))
    parts = {
        "accuracy": accuracy.mean(),
        "balanced_accuracy": accuracy.mean(),
        "head": accuracy[:third].mean(),
        "medium": accuracy[third:-third].mean(),
        "tail": accuracy[-third:].mean(),
        "worst_class": accuracy.min(),
    }
    prefixes = {"accuracy": "acc_", "balanced_accuracy": ""}
    ends = {
        f"{prefixes.get(name, f'{name}_')}ci_{end}": value + (0.01 if end == "high" else -0.01)
        for name, value in parts.items()
        for end in ("low", "high")
    }
    eps = 0.0 if attack == "clean" else 8 / 255
    facts = {
        "test_protocol": "balanced",
        "checkpoint": "last",
        "attack": attack,
        "eps": eps,
        "n": images,
        "seconds": 10.0,
        "split_seed": 0,
        "augment": "none",
        "epochs": EPOCHS,
        "select": "last",
        "precision": "bf16",
        "attack_settings": json.dumps({"eps": eps, "norm": "Linf"}),
        "attack_library": "ltrobust 0.1.0",
        "torch": "2",
        "ltrobust": "0.1.0",
        "git_commit": "0" * 40,
        "device": "cpu",
        "attack_device": "cpu",
        "imbalance_type": "exp",
        "batch_size": 128,
        "train_eps": 8 / 255,
        "config_id": "",
        "attack_id": f"{attack}-id",
        "reliability": "",
        "natural_error": 0.1,
        "boundary_error": 0.2,
        "groups": "3,4,3",
        "train_seconds": 600.0,
        "peak_memory_bytes": 2e9,
        "parameters": 11e6,
        "n_train": 12_406,
        "split_sha256": "ab" * 32,
        "robust_gap": parts["head"] - parts["tail"],
        "n_class_min": images // len(accuracy),
        "n_class_max": images // len(accuracy),
        "threads": 2,
        "attack_threads": 2,
        "attack_code": "",
        "recipe_changes": "",
        "reliability_report": "yes",
        "test_sha256": "cd" * 32,
    }
    return {**facts, "data_fingerprint": "", **parts, **ends}


def _class_rows(
    common: Mapping[str, Any], attack: str, accuracy: np.ndarray, images: int, ratio: float
) -> pd.DataFrame:
    classes = len(accuracy)
    third = max(1, round(classes / 3))
    names = ["head"] * third + ["medium"] * (classes - 2 * third) + ["tail"] * third
    return pd.DataFrame(
        {
            **common,
            "attack": attack,
            "class_index": range(classes),
            "class_name": [f"class {index}" for index in range(classes)],
            "n_train": [int(5000 * ratio ** (-index / (classes - 1))) for index in range(classes)],
            "n_test": images // classes,
            "accuracy": accuracy,
            "attack_id": f"{attack}-id",
            "ci_low": accuracy - 0.02,
            "ci_high": accuracy + 0.02,
            "group": names,
        }
    )


def _confusion_rows(
    run: str, method: str, attack: str, right: np.ndarray, images: int
) -> pd.DataFrame:
    """Every mistake of a class spread evenly over the others."""
    classes = len(right)
    wrong = (images - right) // (classes - 1)
    matrix = np.repeat(wrong[:, None], classes, axis=1)
    np.fill_diagonal(matrix, right)
    labels, preds = np.divmod(np.arange(classes**2), classes)
    known = {"run_id": run, "method": method, "attack": attack, "attack_id": f"{attack}-id"}
    frame = pd.DataFrame({**known, "label": labels, "pred": preds, "count": matrix.ravel()})
    return frame[frame["count"] > 0]


def _history(epochs: int, rng: np.random.Generator) -> pd.DataFrame:
    done = np.linspace(0, 1, epochs)
    noise = rng.normal(0, 0.01, (2, epochs))
    curves = {"train_loss": 2.3 - done + noise[0], "train_robust_acc": 0.5 * done + noise[1]}
    return pd.DataFrame({"epoch": range(epochs), **curves, "val_robust_acc": 0.4 * done})


def _comparisons(metrics: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The best of each setting and attack against every other, with made-up p values."""
    slugs = {run: group.slug for group in comparable_groups(metrics) for run in group.run_ids}
    rows = []
    for (slug, attack), own in metrics.groupby([metrics["run_id"].map(slugs), "attack"]):
        means = own.groupby("method")["balanced_accuracy"].mean().sort_values(ascending=False)
        best, *others = means.index
        for other, contest in itertools.product(others, ("balanced", "tail")):
            p = float(rng.random() ** 4)
            rows.append(
                {
                    "setting": slug,
                    "attack": attack,
                    "group": contest,
                    "best": best,
                    "other": other,
                    "eps": 8 / 255,
                    "n": 1000,
                    "difference": 0.01,
                    "low": -0.01,
                    "high": 0.03,
                    "p": p,
                    "best_run_id": "",
                    "other_run_id": "",
                    "basis": "paired images",
                    "verdict": "A better" if p < 0.05 else "within noise",
                }
            )
    return pd.DataFrame(rows)


def measure(runs: int, settings: int, images: int) -> Measured:
    """Report made-up runs once, of which one setting has changed since the last report."""
    tables = synthetic(runs, settings, images)
    frames = (tables.metrics, tables.per_class, tables.histories, tables.comparisons)
    steps = {}
    computed, started = time.process_time(), time.perf_counter()

    def done(step: str) -> None:
        nonlocal started
        steps[step] = time.perf_counter() - started
        started = time.perf_counter()

    board = make_board(*frames, tables.confusion)
    done("board")
    made: Rendered = render_board(board, _drawn_before(board))
    done("files")
    page = board_page(board, title="scale", downloads={"metrics.csv": "metrics.csv"})
    done("page")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**made.files, "index.html": page}.items():
            file = Path(folder, name.replace("/", "-"))
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        for place, frame in enumerate((*frames[:2], tables.comparisons, tables.confusion)):
            frame.to_csv(Path(folder, f"{place}.csv"), index=False)
    done("csv")
    computed = time.process_time() - computed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    sizes = (peak, len(page) / 2**20)
    return Measured(runs, settings, images, computed, sum(steps.values()), *steps.values(), *sizes)


def _drawn_before(board: Board) -> dict[str, str]:
    """Digests of all figures but those of one setting, as an earlier report left them."""
    return {
        f"figures/{name}{ending}.png": digest
        for (name, ending), digest in figure_digests(board).items()
        if ending != board.settings[0].ending
    }


def main() -> None:
    """Measure every size in a process of its own and show what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--runs", type=int, nargs="+", default=SIZES)
    parser.add_argument("--settings", type=int, default=SETTINGS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        images = IMAGES.get(given.one, 1_000)
        print(json.dumps(asdict(measure(given.one, given.settings, images))))
        return
    found = []
    for runs in given.runs:
        command = [sys.executable, __file__, "--one", str(runs), "--settings", str(given.settings)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(out.splitlines()[-1]))
        told = {name: round(value, 1) for name, value in found[-1].items()}
        print(", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in told.items()))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
