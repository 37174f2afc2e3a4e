"""Results of several directories together, from their runs or from their CSV files alone.

A directory with stored outcomes is computed anew, any other is taken from its CSV files. Nothing
is written here but in `rebuild`, which works in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ltrobust.bench import csv_files
from ltrobust.bench.collect import (
    CONFUSION_COLUMNS,
    METRICS_COLUMNS,
    PER_CLASS_COLUMNS,
    SuiteResults,
    build_report,
    read_examples,
    read_histories,
    rendered,
    results_of,
)
from ltrobust.bench.evaluations import JudgedRun, read_suite
from ltrobust.bench.filters import Filters, check_filters, filtered, shown
from ltrobust.bench.pairs import LEAD_COLUMNS, PAIRED, leads
from ltrobust.bench.store import SuiteStore
from ltrobust.errors import UserError
from ltrobust.evaluation.compare import UNKNOWN
from ltrobust.evaluation.metrics import THIRDS, Grouping
from ltrobust.report.groups import comparable_groups

_SAME_RUN = ("method", "dataset", "imbalance_ratio", "arch", "recipe", "seed", "select")
_SAME_RESULT = ("n", "accuracy", "balanced_accuracy", "worst_class")
_LEAD_KEY = ("attack", "group", "best_run_id", "other_run_id")


@dataclass(frozen=True)
class Part:
    """What one directory holds.

    Attributes:
        path: the directory.
        results: its frames; comparisons are those of a stored comparisons.csv.
        runs: those whose outcomes are there; none where the CSV files are all there is.
    """

    path: Path
    results: SuiteResults
    runs: tuple[JudgedRun, ...]


def read_part(directory: Path, grouping: Grouping | None = None) -> Part:
    """Read one directory: from its runs where outcomes are stored, else from its CSV files.

    Args:
        directory: `results/<suite>`, or a folder with metrics.csv and per_class.csv.
        grouping: how head, medium and tail are cut; None for thirds, or as the CSV files have it.

    Raises:
        UserError: there is nothing to report, a file is damaged, or `grouping` would need outcomes
            that are not there.
    """
    check_directory(directory)
    store = SuiteStore(directory)
    if _from_csv(store):
        return Part(directory, _stored(store, grouping), ())
    runs = read_suite(store)
    results = results_of(runs, store, grouping or THIRDS)
    _check_evaluated(directory, results)
    return Part(directory, results, tuple(runs))


def gather(
    directories: Sequence[Path], filters: Filters | None = None, grouping: Grouping | None = None
) -> SuiteResults:
    """Put the results of directories together; a run that several of them hold counts once.

    Comparisons with the best method are computed between all runs whose outcomes are there, taken
    from comparisons.csv for pairs that stand in one, and unknown otherwise.

    Args:
        directories: one or more; the same one twice counts once.
        filters: which results; None for all.
        grouping: see `read_part`.

    Raises:
        UserError: see `read_part`; a filter that matches nothing; two directories that contradict
            each other about a run.
    """
    paths = {path.resolve(): path for path in reversed(directories)}
    parts = [read_part(path, grouping) for path in reversed(paths.values())]
    parts = _narrowed(parts, filters or Filters())
    metrics = _merged_metrics(parts)
    classes = _first_blocks(parts, lambda part: part.results.classes, PER_CLASS_COLUMNS)
    confusion = _first_blocks(parts, lambda part: part.results.confusion, CONFUSION_COLUMNS)
    runs = [run for part in parts for run in part.runs]
    comparisons = leads(comparable_groups(metrics), runs, grouping or THIRDS)
    known = _concat([part.results.comparisons for part in parts if not part.runs], LEAD_COLUMNS)
    histories = {
        run_id: history
        for part in reversed(parts)
        for run_id, history in part.results.histories.items()
    }
    examples = {
        run_id: images
        for part in reversed(parts)
        for run_id, images in part.results.examples.items()
    }
    comparisons = _filled(comparisons, known)
    return SuiteResults(metrics, classes, confusion, comparisons, histories, examples)


def check_directory(directory: Path) -> None:
    """Look whether a directory holds anything to report, and leave it as it is.

    Raises:
        UserError: it holds neither runs nor metrics.csv.
    """
    if not SuiteStore(directory).runs() and not (directory / "metrics.csv").is_file():
        raise UserError(
            f"{directory} holds no runs and no metrics.csv; give a suite's directory "
            "(results/<suite>)"
        )


def rebuild(store: SuiteStore, grouping: Grouping | None = None) -> SuiteResults:
    """Rebuild a directory's reports in place; return what they are made of.

    Without outcomes the CSV files stay as they are, tables are written anew, and of the figures
    those that need more than CSV files are left alone.

    Raises:
        UserError: see `read_part`.
    """
    if not _from_csv(store):
        results = build_report(store, grouping or THIRDS)
        _check_evaluated(store.path, results)
        return results
    results = gather([store.path], None, grouping)
    files = rendered(results, store)
    for name, content in files.items():
        store.write(name, content)
    figures = {f"figures/{file.name}" for file in (store.path / "figures").glob("*")}
    store.drop_reports({*files, *figures})
    return results


def check_output(output: Path, directories: Sequence[Path]) -> None:
    """Refuse to write a report over results that it was not made from alone.

    Raises:
        UserError: the output is one of the directories, or holds runs of its own.
    """
    if output.resolve() in {path.resolve() for path in directories}:
        raise UserError(f"--output {output} is a directory that is read; choose another")
    if SuiteStore(output).runs():
        raise UserError(f"--output {output} holds runs of its own; choose another directory")


def _from_csv(store: SuiteStore) -> bool:
    outcomes = any((run.path / "outcomes.parquet").is_file() for run in store.runs())
    return not outcomes and (store.path / "metrics.csv").is_file()


def _check_evaluated(directory: Path, results: SuiteResults) -> None:
    if results.metrics.empty:
        raise UserError(f"{directory} holds no evaluated run yet; run ltrobust bench first")


def _stored(store: SuiteStore, grouping: Grouping | None) -> SuiteResults:
    if grouping is not None:
        raise UserError(
            f"--groups needs stored outcomes; {store.path} has CSV files only, in which head, "
            "medium and tail are cut already"
        )
    metrics = csv_files.read_metrics(store.path)
    if metrics.empty:
        raise UserError(f"{store.path / 'metrics.csv'} has no rows; evaluate at least one run")
    return SuiteResults(
        metrics,
        csv_files.read_classes(store.path),
        csv_files.read_confusion(store.path),
        csv_files.read_comparisons(store.path),
        read_histories(store),
        read_examples(store),
    )


def _narrowed(parts: Sequence[Part], filters: Filters) -> list[Part]:
    """Leave the wanted runs of each part; parts without any go."""
    if not filters.chosen:
        return list(parts)
    check_filters(_concat([part.results.metrics for part in parts], METRICS_COLUMNS), filters)
    kept = [_only(part, filters) for part in parts]
    return [part for part in kept if not part.results.metrics.empty]


def _only(part: Part, filters: Filters) -> Part:
    results = part.results
    metrics = results.metrics[filtered(results.metrics, filters)]
    ids = set(metrics["run_id"])
    left = replace(
        results,
        metrics=metrics,
        classes=results.classes[results.classes["run_id"].isin(ids)],
        confusion=results.confusion[results.confusion["run_id"].isin(ids)],
        histories={run: frame for run, frame in results.histories.items() if run in ids},
        examples={run: frame for run, frame in results.examples.items() if run in ids},
    )
    return Part(part.path, left, tuple(run for run in part.runs if run.run_id in ids))


def _merged_metrics(parts: Sequence[Part]) -> pd.DataFrame:
    """All metric rows, each run and attack once.

    Raises:
        UserError: directories contradict each other.
    """
    seen: dict[tuple[str, ...], tuple[Part, dict[Any, Any]]] = {}
    kept = []
    for part in parts:
        new = []
        for row in part.results.metrics.to_dict("records"):
            key = _key(row)
            first, known = seen.setdefault(key, (part, row))
            if first is not part:
                _check_same(first, known, part, row)
            new.append(first is part)
        kept.append(part.results.metrics[new])
    return _concat(kept, METRICS_COLUMNS)


def _key(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Run and attack; older files have no attack id."""
    name = row["attack_id"] or f"{row['attack']} {row['eps']} {row['attack_settings']} {row['n']}"
    return str(row["run_id"]), str(name)


def _check_same(first: Part, known: Mapping[Any, Any], part: Part, row: Mapping[Any, Any]) -> None:
    cuts = [str(one["groups"]) for one in (known, row) if one["groups"]]
    if len(set(cuts)) > 1:
        raise UserError(
            f"{_both(first, part, row)}: head, medium and tail are cut differently "
            f"({' and '.join(cuts)}); report both with the same --groups"
        )
    different = [name for name in _SAME_RUN if known[name] != row[name]]
    different += [name for name in _SAME_RESULT if not _equal(known[name], row[name])]
    if not different and not _equal_classes(first, part, row):
        raise UserError(
            f"{_both(first, part, row)}: their accuracies by class differ; leave one of the "
            "directories out"
        )
    if different:
        name = different[0]
        raise UserError(
            f"{_both(first, part, row)}: {name} {shown(known[name])} and {shown(row[name])}; "
            "leave one of the directories out"
        )


def _both(first: Part, part: Part, row: Mapping[Any, Any]) -> str:
    return (
        f"{first.path} and {part.path} hold different results of run {row['run_id']} under "
        f"{row['attack']}"
    )


def _equal(one: float, other: float) -> bool:
    return bool(math.isclose(one, other, rel_tol=0, abs_tol=1e-9))


def _equal_classes(first: Part, part: Part, row: Mapping[Any, Any]) -> bool:
    """Whether the accuracies by class agree, as far as both parts have them."""
    one, other = (_classes(which.results.classes, row) for which in (first, part))
    return one.empty or other.empty or (one.index.equals(other.index) and _close(one, other))


def _close(one: pd.Series, other: pd.Series) -> bool:
    same = (one - other).abs() <= 1e-9
    return bool((same | (one.isna() & other.isna())).all())


def _classes(frame: pd.DataFrame, row: Mapping[Any, Any]) -> pd.Series:
    if "attack_id" not in frame or not row["attack_id"]:
        return pd.Series(dtype=float)
    own = frame[(frame["run_id"] == row["run_id"]) & (frame["attack_id"] == row["attack_id"])]
    return own.set_index("class_index")["accuracy"].sort_index()


def _first_blocks(
    parts: Sequence[Part], frame_of: Callable[[Part], pd.DataFrame], columns: Sequence[str]
) -> pd.DataFrame:
    """Rows of every run and attack, from the first part that has them."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for part in parts:
        frame = frame_of(part)
        names = [name for name in ("run_id", "attack", "attack_id") if name in frame]
        keys = list(frame[names].itertuples(index=False, name=None))
        kept.append(frame[[key not in seen for key in keys]])
        seen |= set(keys)
    return _concat(kept, columns)


def _concat(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Frames one below the other; no rows give the columns alone."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(filled, ignore_index=True)


def _filled(comparisons: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Put stored intervals where outcomes are missing; a pair must agree about its difference."""
    stored = {_lead_key(row): row for row in known.to_dict("records")}
    rows = []
    for row in comparisons.to_dict("records"):
        old = stored.get(_lead_key(row))
        missing = row["verdict"] == UNKNOWN and row["basis"] == PAIRED
        if missing and old is not None and _equal(old["difference"], row["difference"]):
            row |= {name: old[name] for name in ("low", "high", "p", "verdict", "basis")}
        rows.append(row)
    return pd.DataFrame(rows, columns=comparisons.columns)


def _lead_key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return *(row[name] for name in _LEAD_KEY), int(row["n"]), round(float(row["eps"]), 9)
