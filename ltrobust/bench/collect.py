"""From the runs' records and outcomes to metrics.csv, per_class.csv and all reports.

Reads only files: `ltrobust report` can rebuild everything on a machine without torch models.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from ltrobust.bench.store import RunStore, SuiteStore
from ltrobust.config import stable_hash
from ltrobust.evaluation.metrics import per_class, summary
from ltrobust.report import render

METRICS_COLUMNS = [
    *("run_id", "method", "dataset", "imbalance_ratio", "test_protocol", "arch", "recipe", "seed"),
    *("checkpoint", "attack", "eps", "n", "accuracy", "balanced_accuracy"),
    *("head", "medium", "tail", "worst_class", "ci_low", "ci_high", "seconds"),
    *("split_seed", "split_sha256", "augment", "epochs", "select", "precision"),
    *("attack_settings", "attack_library", "torch", "ltrobust", "git_commit", "device"),
    *("attack_id", "imbalance_type", "n_train", "batch_size", "train_eps", "config_id"),
]
PER_CLASS_COLUMNS = [
    *("run_id", "method", "dataset", "imbalance_ratio", "arch", "seed", "attack"),
    *("class_index", "class_name", "n_train", "n_test", "accuracy"),
    *("eps", "test_protocol", "attack_settings", "attack_library", "attack_id"),
]
"""Columns may be added at the end, never renamed."""


def metrics_table(store: SuiteStore) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return metrics (a row per run x attack) and per-class accuracies (x class) of a suite."""
    metrics: list[dict[str, Any]] = []
    classes: list[pd.DataFrame] = []
    for run in store.runs():
        record = run.read()
        frame = run.outcomes()
        for attack_id, evaluation in record.get("evaluations", {}).items():
            rows = frame[frame["attack_id"] == attack_id]
            metrics.append({**_metrics_row(record, evaluation, rows), "attack_id": attack_id})
            classes.append(_class_rows(record, evaluation, attack_id, rows))
    both = pd.DataFrame(metrics, columns=METRICS_COLUMNS)
    each = pd.concat(classes) if classes else pd.DataFrame(columns=PER_CLASS_COLUMNS)
    return both, each.reset_index(drop=True)


def _common(record: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    config = record["config"]
    ratio = config["data"]["imbalance_ratio"]
    return {
        "run_id": record["run_id"],
        "method": config["method"],
        "dataset": config["data"]["name"],
        "imbalance_ratio": float(record["data"]["imbalance_ratio"] if ratio is None else ratio),
        "arch": config["arch"],
        "seed": config["seed"],
        "attack": evaluation["attack"],
        "eps": float(evaluation["eps"]),
        "test_protocol": evaluation["test_protocol"],
        "attack_settings": json.dumps(
            evaluation["settings"], sort_keys=True, separators=(",", ":")
        ),
        "attack_library": evaluation["library"],
    }


def _metrics_row(
    record: dict[str, Any], evaluation: dict[str, Any], rows: pd.DataFrame
) -> dict[str, Any]:
    config, versions = record["config"], record["provenance"]["versions"]
    numbers = summary(rows, record["data"]["train_counts"])
    return {
        **_common(record, evaluation),
        **numbers,
        "n": len(rows),
        "recipe": config["recipe_name"],
        "checkpoint": record.get("checkpoint", ""),
        "seconds": evaluation["seconds"],
        "split_seed": config["data"]["split_seed"],
        "imbalance_type": config["data"]["imbalance_type"],
        "n_train": sum(record["data"]["train_counts"]),
        "batch_size": config["recipe"]["batch_size"],
        "train_eps": float(config["recipe"]["attack"]["eps"]),
        "config_id": stable_hash({k: v for k, v in config.items() if k != "seed"}),
        "split_sha256": record["data"]["split_sha256"],
        "augment": config["recipe"]["augment"],
        "epochs": config["recipe"]["epochs"],
        "select": config["select"],
        "precision": config["precision"],
        "torch": versions["torch"],
        "ltrobust": versions["ltrobust"],
        "git_commit": record["provenance"]["git_commit"],
        "device": record["provenance"]["device_name"],
    }


def _class_rows(
    record: dict[str, Any], evaluation: dict[str, Any], attack_id: str, rows: pd.DataFrame
) -> pd.DataFrame:
    names, counts = record["data"]["class_names"], record["data"]["train_counts"]
    frame = per_class(rows, len(counts)).assign(
        **_common(record, evaluation),
        class_name=names,
        n_train=counts,
        attack_id=attack_id,
    )
    return frame[PER_CLASS_COLUMNS]


def build_report(store: SuiteStore) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rebuild every table and figure of a suite from its runs; return metrics and per-class rows.

    Nothing is written when no run has been evaluated yet.
    """
    metrics, classes = metrics_table(store)
    if metrics.empty:
        return metrics, classes
    files = render(metrics, classes, _histories(store.runs()))
    store.write("metrics.csv", metrics.to_csv(index=False))
    store.write("per_class.csv", classes.to_csv(index=False))
    for name, content in files.items():
        store.write(name, content)
    store.drop_reports(set(files))
    return metrics, classes


def _histories(runs: list[RunStore]) -> dict[str, pd.DataFrame]:
    histories = {run.run_id: run.history() for run in runs}
    return {run_id: history for run_id, history in histories.items() if len(history)}
