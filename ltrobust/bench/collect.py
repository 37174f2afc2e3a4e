"""From the runs' records and outcomes to metrics.csv, per_class.csv and all reports.

Reads only files: `ltrobust report` can rebuild everything on a machine without torch models. What
several directories hold together, and what CSV files alone give, is the part of `merge.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.bench.evaluations import Evaluation, JudgedRun
from ltrobust.bench.pairs import LEAD_COLUMNS
from ltrobust.bench.store import RunStore, SuiteStore
from ltrobust.config import config_hash
from ltrobust.data.spec import one_name_each, result_name
from ltrobust.evaluation.metrics import (
    THIRDS,
    Grouping,
    class_groups,
    error_parts,
    intervals,
    per_class,
    summary,
    wilson,
)
from ltrobust.output import printable
from ltrobust.report import Rendered, leaderboard, render_board
from ltrobust.report.board import make_board

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
    "fine_tuning_epochs",
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
    *("threads", "attack_threads", "fine_tuning_epochs"),
)
"""Columns of whole numbers of which some may be missing."""
CONFUSION_COLUMNS = [
    *("run_id", "method", "attack", "attack_id", "label", "label_name", "pred", "pred_name"),
    "count",
]


@dataclass(frozen=True)
class SuiteResults:
    """All frames that a report is made of.

    Attributes:
        metrics: a row per run and attack.
        classes: a row per run, attack and class.
        confusion: a row per run, attack, class and prediction that occurs.
        comparisons: the best method of each setting and attack against every other.
        histories: run id to its learning curve; runs may be missing.
        examples: run id to a few attacked images of it; runs may be missing.
        gaps: what could not be made anew for want of outcomes, one line each.
        across: what rows of one table may differ in.
    """

    metrics: pd.DataFrame
    classes: pd.DataFrame
    confusion: pd.DataFrame
    comparisons: pd.DataFrame
    histories: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    examples: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()
    across: tuple[str, ...] = ()

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per method and setting, as in leaderboard.csv."""
        return leaderboard(self.metrics, self.across, self.comparisons)


def metrics_table(
    runs: Sequence[JudgedRun], grouping: Grouping = THIRDS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return metrics (a row per run x attack) and per-class accuracies (x class) of runs.

    Raises:
        UserError: the grouping does not fit the number of classes.
    """
    pairs = [(run, evaluation) for run in runs for evaluation in run.evaluations]
    metrics = [_metrics_row(run, evaluation, grouping) for run, evaluation in pairs]
    classes = [_class_rows(run, evaluation, grouping) for run, evaluation in pairs]
    both = pd.DataFrame(metrics, columns=METRICS_COLUMNS)
    both = both.astype(dict.fromkeys(MAYBE_COUNTS, "Int64"))
    each = pd.concat(classes) if classes else pd.DataFrame(columns=PER_CLASS_COLUMNS)
    names = one_name_each(both["dataset"])
    both["dataset"], each["dataset"] = both["dataset"].map(names), each["dataset"].map(names)
    return both, each.reset_index(drop=True)


def confusion_table(runs: Sequence[JudgedRun]) -> pd.DataFrame:
    """Count, for each run, attack and class, the predictions that occur."""
    frames = [_confusion_rows(run, found) for run in runs for found in run.evaluations]
    empty = pd.DataFrame(columns=CONFUSION_COLUMNS)
    return pd.concat(frames, ignore_index=True) if frames else empty


def _confusion_rows(run: JudgedRun, evaluation: Evaluation) -> pd.DataFrame:
    counts = evaluation.rows.groupby(["label", "pred"]).size().reset_index(name="count")
    names = dict(enumerate(run.class_names))
    counts = counts.assign(
        run_id=run.run_id,
        method=run.record["config"]["method"],
        attack=evaluation.facts["attack"],
        attack_id=evaluation.attack_id,
        label_name=counts["label"].map(names),
        pred_name=counts["pred"].map(names),
    )
    return counts[CONFUSION_COLUMNS]


def _common(run: JudgedRun, evaluation: Evaluation) -> dict[str, Any]:
    config, facts = run.record["config"], evaluation.facts
    ratio = config["data"]["imbalance_ratio"]
    return {
        "run_id": run.run_id,
        "method": config["method"],
        "dataset": result_name(config["data"]["name"], config["data"].get("fingerprint", "")),
        "imbalance_ratio": float(run.record["data"]["imbalance_ratio"] if ratio is None else ratio),
        "arch": config["arch"],
        "seed": config["seed"],
        "attack": facts["attack"],
        "eps": float(facts["eps"]),
        "test_protocol": facts["test_protocol"],
        "attack_settings": json.dumps(facts["settings"], sort_keys=True, separators=(",", ":")),
        "attack_library": facts["library"],
        "attack_id": evaluation.attack_id,
    }


def _metrics_row(run: JudgedRun, evaluation: Evaluation, grouping: Grouping) -> dict[str, Any]:
    record, rows = run.record, evaluation.rows
    config, versions = record["config"], record["provenance"]["versions"]
    attacked = evaluation.facts.get("provenance", {})
    numbers = summary(rows, run.train_counts, grouping)
    tested = per_class(rows, len(run.train_counts))["n_test"]
    return {
        **_common(run, evaluation),
        **numbers,
        **intervals(rows, run.train_counts, grouping),
        **error_parts(rows, run.clean(evaluation)),
        "robust_gap": numbers["head"] - numbers["tail"],
        "groups": grouping.text(run.train_counts),
        "reliability": ";".join(run.flagged or ()) if run.checked(evaluation) else None,
        "n": len(rows),
        "recipe": config["recipe_name"],
        "checkpoint": record.get("checkpoint", ""),
        "seconds": evaluation.facts["seconds"],
        "split_seed": config["data"]["split_seed"],
        # classes that came as they are were cut by no rule
        "imbalance_type": config["data"]["imbalance_type"]
        if config["data"]["imbalance_ratio"] is not None
        else "",
        "n_train": sum(run.train_counts),
        "batch_size": config["recipe"]["batch_size"],
        "train_eps": float(config["recipe"]["attack"]["eps"]),
        "config_id": config_hash({k: v for k, v in config.items() if k != "seed"}),
        "split_sha256": record["data"]["split_sha256"],
        "augment": config["recipe"]["augment"],
        "epochs": config["recipe"]["epochs"],
        "select": config["select"],
        "precision": config["precision"],
        "torch": versions["torch"],
        "ltrobust": versions["ltrobust"],
        "git_commit": record["provenance"]["git_commit"],
        "device": record["provenance"]["device_name"],
        "train_seconds": record.get("timings", {}).get("train_seconds"),
        "peak_memory_bytes": record.get("peak_memory_bytes"),
        "parameters": record.get("parameters"),
        "attack_device": attacked.get("device_name", ""),
        "threads": record["provenance"].get("threads"),
        "attack_threads": attacked.get("threads"),
        "attack_code": _code(attacked),
        "recipe_changes": _recipe_changes(record),
        "reliability_report": "yes" if run.checked(evaluation) else "no",
        "fine_tuning_epochs": record.get("fine_tuning", {}).get("epochs"),
        "n_class_min": int(tested.min()),
        "n_class_max": int(tested.max()),
        "test_sha256": evaluation.facts["test_sha256"],
        "data_fingerprint": config["data"].get("fingerprint", ""),
    }


def _code(origin: Mapping[str, Any]) -> str:
    """Commit of a provenance, or the version of an installed package; "" when unknown."""
    version = origin.get("versions", {}).get("ltrobust", "")
    return str(origin.get("git_commit", "")) or (f"ltrobust {version}" if version else "")


def _recipe_changes(record: dict[str, Any]) -> str:
    """Values of the recipe that were set one by one, such as "attack.steps=3;lr=0.05"."""
    options = record.get("overrides", {}).get("option", [])
    names = [str(option).partition("=")[0] for option in options]
    paths = {name.removeprefix("recipe.") for name in names if name.startswith("recipe.")}
    changes = []
    for path in sorted(paths):
        value = record["config"]["recipe"]
        for part in path.split("."):
            value = value[part]
        changes.append(f"{path}={value}")
    return ";".join(changes)


def _class_rows(run: JudgedRun, evaluation: Evaluation, grouping: Grouping) -> pd.DataFrame:
    counts = run.train_counts
    members = class_groups(counts, grouping)
    group_of = {c: name for name, classes in members.items() for c in classes}
    frame = per_class(evaluation.rows, len(counts))
    with np.errstate(invalid="ignore"):  # classes without test images have no interval
        low, high = wilson(
            frame["right"].to_numpy(dtype=float),
            frame["n_test"].replace(0, np.nan).to_numpy(dtype=float),
        )
    frame = frame.assign(
        **_common(run, evaluation),
        class_name=run.record["data"]["class_names"],
        n_train=counts,
        ci_low=low,
        ci_high=high,
        group=frame["class_index"].map(group_of),
    )
    return frame[PER_CLASS_COLUMNS]


def results_of(
    runs: Sequence[JudgedRun], store: SuiteStore, grouping: Grouping = THIRDS
) -> SuiteResults:
    """Make the frames of a report from a suite's runs, comparisons left empty.

    Raises:
        UserError: the grouping does not fit the number of classes.
    """
    metrics, classes = metrics_table(runs, grouping)
    comparisons = pd.DataFrame(columns=LEAD_COLUMNS)
    return SuiteResults(
        metrics,
        classes,
        confusion_table(runs),
        comparisons,
        read_histories(store),
        read_examples(store),
    )


def write_report(store: SuiteStore, results: SuiteResults) -> None:
    """Write the CSV files of results, their tables, figures and page; stale ones go.

    A figure stays where what it was made from may be gone.
    """
    files: dict[str, str | bytes] = {
        name: frame.to_csv(index=False) for name, frame in _csv_frames(results).items()
    }
    runs = set(results.metrics["run_id"])
    spare = [
        *(["figures/"] if results.gaps else []),
        *(["figures/adversarial"] if runs - results.examples.keys() else []),
        *(["figures/training"] if runs - results.histories.keys() else []),
    ]
    made = rendered(results, store)
    store.write_reports({**files, **made.files}, spare=spare, drawn=made.drawn)


def rendered(results: SuiteResults, store: SuiteStore) -> Rendered:
    """Leaderboard, tables, page and what figures have changed, by their names in the directory."""
    from ltrobust.report.page import board_page  # plotly takes a second to import

    board = make_board(
        results.metrics,
        results.classes,
        results.histories,
        results.comparisons,
        results.confusion,
        results.examples,
        results.across,
    )
    made = render_board(board, store.drawn())
    made.files["index.html"] = board_page(
        board,
        title=printable(store.path.resolve().name),
        downloads={
            "leaderboard.csv": "leaderboard.csv",
            **{name: name for name, frame in _csv_frames(results).items() if not frame.empty},
        },
    )
    return made


def _csv_frames(results: SuiteResults) -> dict[str, pd.DataFrame]:
    return {
        "metrics.csv": results.metrics,
        "per_class.csv": results.classes,
        "confusion.csv": results.confusion,
        "comparisons.csv": results.comparisons,
    }


def read_examples(store: SuiteStore) -> dict[str, pd.DataFrame]:
    """Run id to attacked images, of the runs that have some."""
    return {_recorded_id(run): run.examples() for run in store.runs() if run.has_examples}


def read_histories(store: SuiteStore) -> dict[str, pd.DataFrame]:
    """Run id to learning curve, of the runs that have one."""
    histories = {_recorded_id(run): run.history() for run in store.runs()}
    return {run_id: history for run_id, history in histories.items() if len(history)}


def _recorded_id(run: RunStore) -> str:
    """The run's id in the tables; its folder may be a link with a name of its own."""
    return str(run.read().get("run_id", run.run_id))
