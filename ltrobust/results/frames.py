"""From digests to the frames that a report is made of: metrics, per-class rows and confusion.

Their CSV files are output: nothing reads them back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.config import Run, config_hash
from ltrobust.data.spec import one_name_each, result_name
from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import (
    THIRDS,
    Grouping,
    class_groups,
    error_parts,
    intervals_of,
    summary_of,
    wilson,
)
from ltrobust.results.collect import Evaluation, JudgedRun
from ltrobust.results.custom import own_metrics
from ltrobust.results.records import EXTERNAL, Provenance

METRICS_COLUMNS = [
    *("run_id", "method", "dataset", "imbalance_ratio", "test_protocol", "arch", "recipe", "seed"),
    *("checkpoint", "attack", "eps", "n", "accuracy", "balanced_accuracy"),
    *("head", "medium", "tail", "worst_class", "ci_low", "ci_high", "seconds"),
    *("split_seed", "split_sha256", "augment", "epochs", "select", "precision"),
    *("attack_settings", "attack_library", "torch", "ltrobust", "git_commit", "device"),
    *("attack_id", "imbalance_type", "n_train", "batch_size", "train_eps", "config_id"),
    *("acc_ci_low", "acc_ci_high", "head_ci_low", "head_ci_high", "medium_ci_low"),
    *("medium_ci_high", "tail_ci_low", "tail_ci_high", "worst_class_ci_low"),
    *("worst_class_ci_high", "robust_gap", "natural_error", "boundary_error", "groups"),
    *("reliability", "train_seconds", "peak_memory_bytes", "parameters", "attack_device"),
    *("recipe_changes", "reliability_report", "n_class_min", "n_class_max", "threads"),
    *("attack_threads", "attack_code", "test_sha256", "data_fingerprint"),
    *("fine_tuning_epochs", "settings_tried", "train_cpu_seconds", "cpu_seconds"),
]
PER_CLASS_COLUMNS = [
    *("run_id", "method", "dataset", "imbalance_ratio", "arch", "seed", "attack"),
    *("class_index", "class_name", "n_train", "n_test", "accuracy"),
    *("eps", "test_protocol", "attack_settings", "attack_library", "attack_id"),
    *("ci_low", "ci_high", "group"),
]
"""Columns may be added at the end, never renamed."""
MAYBE_COUNTS = (
    *("peak_memory_bytes", "parameters", "n_class_min", "n_class_max"),
    *("threads", "attack_threads", "fine_tuning_epochs", "settings_tried"),
)
"""Columns of whole numbers of which some may be missing."""
CONFUSION_COLUMNS = [
    *("run_id", "method", "attack", "attack_id", "label", "label_name", "pred", "pred_name"),
    "count",
]
_COMMON = ("run_id", "method", "dataset", "imbalance_ratio", "arch", "seed", "attack")
_OF_ATTACK = ("eps", "test_protocol", "attack_settings", "attack_library", "attack_id")


def metrics_table(
    runs: Sequence[JudgedRun], grouping: Grouping = THIRDS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return metrics (a row per run x attack) and per-class accuracies (x class) of runs.

    Metrics from outside stand behind ours.

    Raises:
        UserError: the grouping does not fit the number of classes, or a metric from outside fails.
    """
    known = names_of(runs)
    metrics, classes = [], []
    for run in runs:
        facts = _run_facts(run) | {"dataset": known[run.run_id]}
        for evaluation in run.evaluations:
            row = facts | _evaluation_facts(run, evaluation, grouping)
            metrics.append(row)
            classes.append(_class_columns(run, evaluation, grouping, row))
    columns = [*METRICS_COLUMNS, *(metric.column for metric in own_metrics())]
    both = _frame(metrics, columns).astype(dict.fromkeys(MAYBE_COUNTS, "Int64"))
    return both, _stacked(classes, PER_CLASS_COLUMNS)


def names_of(runs: Sequence[JudgedRun]) -> dict[str, str]:
    """Run id to the data set's name in tables: one for a folder that was renamed meanwhile."""
    own = {run.run_id: _dataset(run) for run in runs}
    names = one_name_each(own.values())
    return {run_id: names[name] for run_id, name in own.items()}


def run_rows(runs: Sequence[JudgedRun]) -> pd.DataFrame:
    """One row per run with the columns of metrics.csv that say what it is, for filters."""
    known = names_of(runs)
    rows = [_run_facts(run) | {"dataset": known[run.run_id]} for run in runs]
    return pd.DataFrame(rows)


def confusion_table(runs: Sequence[JudgedRun]) -> pd.DataFrame:
    """Count, for each run, attack and class, the predictions that occur."""
    return _stacked(
        [_confusion_columns(run, found) for run in runs for found in run.evaluations],
        CONFUSION_COLUMNS,
    )


def _confusion_columns(run: JudgedRun, evaluation: Evaluation) -> dict[str, Any]:
    labels, predictions, counts = zip(*evaluation.digest.confusion(), strict=True)
    names = dict(enumerate(run.class_names))
    return {
        "run_id": run.run_id,
        "method": run.method,
        "attack": evaluation.attack,
        "attack_id": evaluation.attack_id,
        "label": labels,
        "label_name": [names[label] for label in labels],
        "pred": predictions,
        "pred_name": [names.get(pred) for pred in predictions],
        "count": counts,
    }


def _stacked(blocks: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Blocks of rows one below the other; in a block a single value stands for all its rows."""
    sizes = [len(block["count" if "count" in block else "class_index"]) for block in blocks]
    content: dict[str, list[Any]] = {}
    for name in columns:
        whole: list[Any] = []
        content[name] = whole
        for block, size in zip(blocks, sizes, strict=True):
            value = block[name]
            whole.extend(value if isinstance(value, list | tuple | np.ndarray) else [value] * size)
    return _frame(content, columns)


def _frame(content: Any, columns: Sequence[str]) -> pd.DataFrame:
    """A frame whose texts are plain objects: of many columns, they are taken apart much faster."""
    with pd.option_context("future.infer_string", False):
        return pd.DataFrame(content, columns=list(columns))


def _dataset(run: JudgedRun) -> str:
    data = run.record.run.data
    return result_name(data.name, data.fingerprint)


def _run_facts(run: JudgedRun) -> dict[str, Any]:
    """The columns that are the same for all attacks of a run."""
    ours, data, trained = run.run, run.record.run.data, run.trained
    ratio, origin = data.imbalance_ratio, run.provenance
    recipe = ours.recipe if ours is not None else None
    return {
        "run_id": run.run_id,
        "method": run.method,
        "imbalance_ratio": float(run.data.imbalance_ratio if ratio is None else ratio),
        "arch": run.record.run.arch,
        "recipe": run.recipe_name,
        "seed": ours.seed if ours is not None else 0,
        "checkpoint": trained.checkpoint if trained is not None else "",
        "split_seed": data.split_seed,
        "split_sha256": run.data.split_sha256,
        "augment": recipe.augment if recipe is not None else EXTERNAL,
        "epochs": recipe.epochs if recipe is not None else 0,
        "select": ours.select if ours is not None else EXTERNAL,
        "precision": ours.precision if ours is not None else EXTERNAL,
        "torch": origin.versions.torch,
        "ltrobust": origin.versions.ltrobust,
        "git_commit": origin.git_commit,
        "device": origin.device_name,
        # classes that came as they are were cut by no rule
        "imbalance_type": data.imbalance_type if ratio is not None else "",
        "n_train": sum(run.train_counts),
        "batch_size": recipe.batch_size if recipe is not None else 0,
        "train_eps": float(recipe.attack.eps) if recipe is not None else 0.0,
        "config_id": _config_id(run),
        "train_seconds": trained.train_seconds if trained is not None else None,
        "train_cpu_seconds": trained.train_cpu_seconds if trained is not None else None,
        "peak_memory_bytes": trained.peak_memory_bytes if trained is not None else None,
        "parameters": trained.parameters if trained is not None else None,
        "recipe_changes": _recipe_changes(run),
        "threads": trained.threads if trained is not None else origin.threads,
        "data_fingerprint": data.fingerprint,
        "fine_tuning_epochs": trained.fine_tuning.epochs
        if trained is not None and trained.fine_tuning is not None
        else None,
        "settings_tried": run.tuning.tried if run.tuning is not None else None,
    }


def _evaluation_facts(run: JudgedRun, found: Evaluation, grouping: Grouping) -> dict[str, Any]:
    """The columns of one attack."""
    digest, facts, counts = found.digest, found.facts, run.train_counts
    right, tested = digest.right, digest.tested
    numbers = summary_of(right, tested, counts, grouping)
    checked = run.checked(found)
    return {
        **numbers,
        **intervals_of(right, tested, counts, grouping),
        **error_parts(digest.natural, sum(right), digest.n),
        "robust_gap": numbers["head"] - numbers["tail"],
        "groups": grouping.text(counts),
        "reliability": ";".join(run.flagged or ()) if checked else None,
        "reliability_report": "yes" if checked else "no",
        "n": digest.n,
        "n_class_min": min(tested),
        "n_class_max": max(tested),
        "attack": found.attack,
        "eps": float(found.eps),
        "test_protocol": facts.test_protocol,
        "attack_settings": json.dumps(found.settings, sort_keys=True, separators=(",", ":")),
        "attack_library": facts.library,
        "attack_id": found.attack_id,
        "seconds": found.seconds,
        "cpu_seconds": found.cpu_seconds,
        "attack_device": facts.provenance.device_name,
        "attack_threads": facts.provenance.threads,
        "attack_code": _code(facts.provenance),
        "test_sha256": facts.test_sha256,
        **_own(run, found),
    }


def _own(run: JudgedRun, found: Evaluation) -> dict[str, float]:
    """The columns of metrics from outside."""
    try:
        return {one.column: one.of(found.digest, run.train_counts) for one in own_metrics()}
    except UserError as error:
        raise UserError(f"{error} ({run.run_id} under {found.attack})") from error


def _class_columns(
    run: JudgedRun, evaluation: Evaluation, grouping: Grouping, row: dict[str, Any]
) -> dict[str, Any]:
    counts = run.train_counts
    members = class_groups(counts, grouping)
    group_of = {c: name for name, classes in members.items() for c in classes}
    right = np.asarray(evaluation.digest.right, dtype=float)
    tested = np.asarray(evaluation.digest.tested, dtype=float)
    with np.errstate(invalid="ignore"):  # classes without test images have no interval
        low, high = wilson(right, np.where(tested > 0, tested, np.nan))
        accuracy = right / tested
    return {
        **{name: row[name] for name in (*_COMMON, *_OF_ATTACK)},
        "class_index": list(range(len(counts))),
        "class_name": run.class_names,
        "n_train": counts,
        "n_test": evaluation.digest.tested,
        "accuracy": accuracy,
        "ci_low": low,
        "ci_high": high,
        "group": [group_of.get(c) for c in range(len(counts))],
    }


def _config_id(run: JudgedRun) -> str:
    """Hash of everything that makes a run but its seed."""
    return config_hash(run.record.run.model_dump(mode="json", exclude={"seed", "label"}))


def _code(origin: Provenance) -> str:
    """Commit of a provenance, or the version of an installed package."""
    return origin.git_commit or f"ltrobust {origin.versions.ltrobust}"


def _recipe_changes(run: JudgedRun) -> str:
    """Values of the recipe that were set one by one, such as "attack.steps=3;lr=0.05"."""
    options = run.record.overrides.get("option", [])
    names = [str(option).partition("=")[0] for option in options]
    paths = {name.removeprefix("recipe.") for name in names if name.startswith("recipe.")}
    if not isinstance(run.record.run, Run):
        return ""
    recipe = run.record.run.recipe.model_dump(mode="json")
    changes = []
    for path in sorted(paths):
        value: Any = recipe
        for part in path.split("."):
            value = value[part]
        changes.append(f"{path}={value}")
    return ";".join(changes)
