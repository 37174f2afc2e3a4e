"""Plausible metrics, per-class results and histories for report tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.bench.leads import LEAD_COLUMNS
from ltrobust.report import render_board
from ltrobust.report.board import Board, make_board
from ltrobust.report.chart import Chart
from ltrobust.report.charts import setting_charts
from ltrobust.report.groups import comparable_groups
from ltrobust.report.page import board_page
from ltrobust.report.setting import Setting
from ltrobust.results.frames import CONFUSION_COLUMNS, METRICS_COLUMNS, PER_CLASS_COLUMNS

EPS = 8 / 255
METHODS = ("pgd-at", "trades", "robal-r", "at-bsl", "taet")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ATTACKS = ("clean", "fgsm", "pgd20", "cw20", "mim20", "autoattack")
STRENGTH = {
    "clean": 1.0,
    "fgsm": 0.6,
    "mim20": 0.53,
    "pgd20": 0.5,
    "cw20": 0.48,
    "autoattack": 0.44,
}


def metric_row(run_id: str = "run", **values: Any) -> dict[str, Any]:
    """One row of metrics.csv; every score is `balanced_accuracy` unless given."""
    score = values.get("balanced_accuracy", 0.5)
    row: dict[str, Any] = {
        **dict.fromkeys(METRICS_COLUMNS, np.nan),
        "run_id": run_id,
        "method": "pgd-at",
        "dataset": "cifar10-lt",
        "imbalance_ratio": 50.0,
        "test_protocol": "balanced",
        "arch": "resnet18",
        "recipe": "unified",
        "seed": 0,
        "checkpoint": "last",
        "attack": "clean",
        "eps": EPS,
        "n": 1000,
        "accuracy": score,
        "balanced_accuracy": score,
        "head": score,
        "medium": score,
        "tail": score,
        "worst_class": score,
        "ci_low": score - 0.03,
        "ci_high": score + 0.03,
        "seconds": 1.5,
        "split_seed": 0,
        "split_sha256": "ab" * 32,
        "augment": "none",
        "epochs": 100,
        "select": "last",
        "precision": "bf16",
        "attack_settings": "{}",
        "attack_library": "ltrobust",
        "torch": "2.11.0",
        "ltrobust": "0.1.0",
        "git_commit": "0" * 40,
        "device": "cpu",
        "batch_size": 128,
        "config_id": "",
        "recipe_changes": "",
        "test_sha256": "",
        "data_fingerprint": "",
        "imbalance_type": "exp",
        "train_eps": EPS,
        "n_class_min": 100,
        "n_class_max": 100,
        "groups": "3,4,3",
    }
    row |= values
    if row["attack"] == "clean":
        row["eps"] = 0.0
    made = {"attack_id": f"{row['attack']}-id", "robust_gap": row["head"] - row["tail"]}
    return row | {name: value for name, value in made.items() if name not in values}


def suite(
    methods: tuple[str, ...] = METHODS,
    classes: int = 10,
    seeds: tuple[int, ...] = (0,),
    attacks: tuple[str, ...] = ATTACKS,
    epochs: int = 14,
    **values: Any,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Metrics, per-class rows and histories of every method with every seed."""
    metrics: list[dict[str, Any]] = []
    per_class: list[dict[str, Any]] = []
    histories = {}
    for place, method in enumerate(methods):
        for seed in seeds:
            rng = np.random.default_rng(1000 * place + seed)
            run_id = hashlib.sha256(f"{method} {seed} {values}".encode()).hexdigest()[:12]
            metrics_of_run, classes_of_run = _run(
                run_id, method, seed, place, classes, attacks, rng, values
            )
            metrics += metrics_of_run
            per_class += classes_of_run
            histories[run_id] = _history(epochs, rng)
    return pd.DataFrame(metrics), pd.DataFrame(per_class), histories


def confused(
    metrics: pd.DataFrame, per_class: pd.DataFrame, classes: int = 10
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Add attack ids and class groups, and make up confusions: a class's mistakes go to class 0,
    those of class 0 to class 1.
    """
    third = max(1, round(classes / 3))
    group = np.where(per_class["class_index"] >= classes - third, "tail", "head")
    per_class = per_class.assign(group=group)
    records = []
    for row in per_class.to_dict("records"):
        label, right = row["class_index"], round(row["accuracy"] * row["n_test"])
        for pred, count in ((label, right), (int(label == 0), row["n_test"] - right)):
            if count:
                names = {"label_name": class_name(label), "pred_name": class_name(pred)}
                keys = {k: row[k] for k in ("run_id", "method", "attack", "attack_id")}
                records.append({**keys, "label": label, "pred": pred, "count": count, **names})
    return metrics, per_class, pd.DataFrame(records)


def class_name(index: int) -> str:
    return CLASSES[index] if index < len(CLASSES) else f"class_{index}"


def _run(
    run_id: str,
    method: str,
    seed: int,
    place: int,
    classes: int,
    attacks: tuple[str, ...],
    rng: np.random.Generator,
    values: dict[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    images = 1000 // classes
    rank = np.arange(classes) / max(1, classes - 1)
    tail_help = 0.1 + 0.1 * (place % 5)
    base = np.clip(0.92 - (0.75 - tail_help) * rank - 0.01 * place, 0.02, 1)
    third = max(1, round(classes / 3))
    rows, class_rows = [], []
    for attack in attacks:
        noisy = base * STRENGTH.get(attack, 0.4) + rng.normal(0, 0.03, classes)
        accuracy = np.round(np.clip(noisy, 0, 1) * images) / images
        setting = {} if attack == "clean" else {"norm": "Linf", "seed": seed}
        score = float(accuracy.mean())
        rows.append(
            metric_row(
                run_id,
                method=method,
                seed=seed,
                attack=attack,
                n=images * classes,
                balanced_accuracy=score,
                head=float(accuracy[:third].mean()),
                medium=float(accuracy[third:-third].mean()) if classes > 2 * third else np.nan,
                tail=float(accuracy[-third:].mean()),
                worst_class=float(accuracy.min()),
                attack_settings=json.dumps(setting),
                attack_library="pyautoattack 0.2.1" if attack == "autoattack" else "ltrobust",
                n_class_min=images,
                n_class_max=images,
                **values,
            )
        )
        for index in range(classes):
            class_rows.append(
                {
                    **dict.fromkeys(PER_CLASS_COLUMNS, np.nan),
                    "run_id": run_id,
                    "attack_id": rows[-1]["attack_id"],
                    "method": method,
                    "dataset": "cifar10-lt",
                    "imbalance_ratio": 50.0,
                    "arch": "resnet18",
                    "seed": seed,
                    "attack": attack,
                    "class_index": index,
                    "class_name": class_name(index),
                    "n_train": int(5000 * 50 ** -float(rank[index])),
                    "n_test": images,
                    "accuracy": float(accuracy[index]),
                    "group": None,
                }
            )
    return rows, class_rows


def _history(epochs: int, rng: np.random.Generator) -> pd.DataFrame:
    epoch = np.arange(epochs)
    drift = 1 - np.exp(-(epoch + 1) / 5)
    robust = 0.15 + 0.4 * drift + rng.normal(0, 0.01, epochs)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "lr": 0.1,
            "train_loss": 2.3 - 0.9 * drift + rng.normal(0, 0.02, epochs),
            "train_acc": robust + 0.2,
            "train_robust_acc": robust,
            "seconds": 42.0,
        }
    )


def board(
    metrics: pd.DataFrame,
    per_class: pd.DataFrame | None = None,
    histories: Mapping[str, pd.DataFrame] | None = None,
    comparisons: pd.DataFrame | None = None,
    confusion: pd.DataFrame | None = None,
    examples: Mapping[str, pd.DataFrame] | None = None,
    across: Sequence[str] = (),
) -> Board:
    """The board of these tables."""
    return make_board(
        comparable_groups(metrics, across),
        _whole(per_class, PER_CLASS_COLUMNS),
        histories or {},
        _whole(comparisons, LEAD_COLUMNS),
        _whole(confusion, CONFUSION_COLUMNS),
        examples or {},
    )


def _whole(frame: pd.DataFrame | None, columns: Sequence[str]) -> pd.DataFrame:
    return (pd.DataFrame() if frame is None else frame).reindex(columns=list(columns))


def settings(*tables: Any, **more: Any) -> tuple[Setting, ...]:
    """The settings of the board of these tables."""
    return board(*tables, **more).settings


def render(*tables: Any, **more: Any) -> dict[str, str | bytes]:
    """The files of their report."""
    return render_board(board(*tables, **more), {}).files


def leaderboard(*tables: Any, **more: Any) -> pd.DataFrame:
    """Their leaderboard."""
    return board(*tables, **more).leaderboard


def page(*tables: Any, title: str, downloads: Sequence[str] = (), **more: Any) -> str:
    """Their page."""
    return board_page(board(*tables, **more), title=title, downloads=downloads)


def charts(setting: Setting) -> dict[str, Chart]:
    """The charts of a setting by name."""
    return {chart.name: chart for chart in setting_charts(setting)}
