"""Results of several directories together, from their runs or from their CSV files alone.

A directory with stored outcomes is computed anew, any other is taken from its CSV files, and so are
single evaluations whose outcomes are gone. Nothing is written here but in `build_report`, which
works in place.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ltrobust.bench import csv_files
from ltrobust.bench.collect import (
    CONFUSION_COLUMNS,
    MAYBE_COUNTS,
    METRICS_COLUMNS,
    PER_CLASS_COLUMNS,
    SuiteResults,
    read_examples,
    read_histories,
    rendered,
    results_of,
    write_report,
)
from ltrobust.bench.evaluations import JudgedRun, read_suite
from ltrobust.bench.filters import Filters, check_filters, filtered, shown
from ltrobust.bench.kept import cut_of, kept_metrics, lost_lines, uncovered, with_kept
from ltrobust.bench.pairs import LEAD_COLUMNS, PAIRED, leads
from ltrobust.bench.store import SuiteStore
from ltrobust.data.spec import one_name_each
from ltrobust.errors import UserError
from ltrobust.evaluation.compare import UNKNOWN
from ltrobust.evaluation.metrics import THIRDS, Grouping
from ltrobust.report.groups import LATER_COLUMNS, comparable_groups
from ltrobust.report.setting import MATCHED

_SAME_RUN = ("method", "dataset", "imbalance_ratio", "arch", "recipe", "seed", "select")
_SAME_RESULT = ("n", "accuracy", "balanced_accuracy", "worst_class", "head", "medium", "tail")
_RUN_WIDE = (
    *("batch_size", "train_eps", "config_id", "imbalance_type", "n_train", "device"),
    *("train_seconds", "peak_memory_bytes", "parameters", "recipe_changes", "threads"),
    "data_fingerprint",
)
"""Later columns that are the same for all attacks of a run."""
_TIMING = ("seconds", "attack_device", "attack_threads", "attack_code")
_RELIABILITY = ("reliability", "reliability_report")
_LEAD_KEY = ("attack", "group", "best_run_id", "other_run_id")


@dataclass(frozen=True)
class Part:
    """What one directory holds.

    Attributes:
        path: the directory.
        results: its frames; comparisons are those of a stored comparisons.csv where some outcomes
            are gone.
        runs: those whose outcomes are there; none where the CSV files are all there is.
        grouping: how the numbers made from outcomes cut head, medium and tail.
    """

    path: Path
    results: SuiteResults
    runs: tuple[JudgedRun, ...]
    grouping: Grouping = THIRDS


def read_part(directory: Path, grouping: Grouping | None = None) -> Part:
    """Read one directory: from its runs where outcomes are stored, else from its CSV files.

    Evaluations whose outcomes are gone are taken from the CSV files too.

    Args:
        directory: `results/<suite>`, or a folder with metrics.csv and per_class.csv.
        grouping: how head, medium and tail are cut; None for thirds, or as the CSV files have it.

    Raises:
        UserError: there is nothing to report, a file is damaged, or `grouping` would need outcomes
            that are not there.
    """
    check_directory(directory)
    part = _part(SuiteStore(directory), grouping)
    _check_evaluated(directory, part.results)
    return part


def _part(store: SuiteStore, grouping: Grouping | None) -> Part:
    """What a directory holds, which may be nothing yet."""
    runs = read_suite(store)
    if _from_csv(store):
        return Part(store.path, replace(_stored(store, grouping), gaps=lost_lines(runs)), ())
    kept = kept_metrics(store, runs)
    made, cut = uncovered(runs, kept), cut_of(kept, runs, grouping)
    results = with_kept(results_of(made, store, cut), kept, store, runs)
    return Part(store.path, results, tuple(made), cut)


def gather(
    directories: Sequence[Path],
    filters: Filters | None = None,
    grouping: Grouping | None = None,
    across: Sequence[str] = (),
) -> SuiteResults:
    """Put the results of directories together; a run that several of them hold counts once.

    What one copy of a run lacks, such as columns of a newer file, comes from the others.

    Comparisons with the best method are computed between all runs whose outcomes are there, taken
    from comparisons.csv for pairs that stand in one, and unknown otherwise.

    Args:
        directories: one or more; the same one twice counts once.
        filters: which results; None for all.
        grouping: see `read_part`.
        across: what rows of one table may differ in, from `parse_across`.

    Raises:
        UserError: see `read_part`; a filter that matches nothing; two directories that contradict
            each other about a run.
    """
    paths = {path.resolve(): path for path in reversed(directories)}
    parts = [read_part(path, grouping) for path in reversed(paths.values())]
    parts = _with_ids(_narrowed(_named(parts), filters or Filters()))
    metrics = _merged_metrics(parts)
    classes = _best_blocks(parts, lambda part: part.results.classes, PER_CLASS_COLUMNS)
    confusion = _best_blocks(parts, lambda part: part.results.confusion, CONFUSION_COLUMNS)
    runs = [run for part in parts for run in part.runs]
    cut = next((part.grouping for part in parts if part.runs), THIRDS)
    comparisons = leads(comparable_groups(metrics, across), runs, cut, classes)
    known = _concat([part.results.comparisons for part in parts], LEAD_COLUMNS)
    return SuiteResults(
        metrics,
        classes,
        confusion,
        _filled(comparisons, known),
        _by_run(part.results.histories for part in parts),
        _by_run(part.results.examples for part in parts),
        gaps=tuple(line for part in parts for line in part.results.gaps),
        across=tuple(across),
    )


def _by_run(found: Iterable[Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Frames by run; of a run that several parts hold, the first's."""
    return {run: frame for one in reversed(list(found)) for run, frame in one.items()}


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
    """Rebuild a directory's reports in place, as `build_report` does.

    Raises:
        UserError: see `read_part`.
    """
    results = build_report(store, grouping)
    _check_evaluated(store.path, results)
    return results


def build_report(store: SuiteStore, grouping: Grouping | None = None) -> SuiteResults:
    """Rebuild every table and figure of a suite; return what they are made of.

    Nothing is written when no run has been evaluated yet. Numbers whose outcomes are gone are kept.
    Without any outcomes the CSV files stay as they are, tables are written anew, and of the figures
    those that need more than CSV files are left alone.

    Raises:
        UserError: the grouping does not fit the number of classes or what is kept, or a file is
            damaged.
    """
    part = _part(store, grouping)
    results = part.results
    if results.metrics.empty:
        return results
    comparisons = leads(
        comparable_groups(results.metrics), part.runs, part.grouping, results.classes
    )
    results = replace(results, comparisons=_filled(comparisons, results.comparisons))
    if part.runs:
        write_report(store, results)
    else:
        made = rendered(results, store)
        store.write_reports(made.files, spare=["figures/"], drawn=made.drawn)
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


def _named(parts: Sequence[Part]) -> list[Part]:
    """Give one name to an image folder that has different ones in different parts."""
    names = one_name_each(name for part in parts for name in part.results.metrics["dataset"])
    return [replace(part, results=_renamed(part.results, names)) for part in parts]


def _renamed(results: SuiteResults, names: Mapping[str, str]) -> SuiteResults:
    metrics, classes = (
        frame.assign(dataset=frame["dataset"].replace(dict(names))) if "dataset" in frame else frame
        for frame in (results.metrics, results.classes)
    )
    return replace(results, metrics=metrics, classes=classes)


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
    return replace(part, results=left, runs=tuple(r for r in part.runs if r.run_id in ids))


def _with_ids(parts: Sequence[Part]) -> list[Part]:
    """Give rows of older files, which have no attack id, that of their copy in another part."""
    if len(parts) < 2:
        return list(parts)
    known: defaultdict[tuple[Any, ...], list[tuple[Part, dict[Any, Any]]]] = defaultdict(list)
    for part in parts:
        for row in part.results.metrics.to_dict("records"):
            if row["attack_id"]:
                known[_key_without_id(row)].append((part, row))
    return [_identified(part, known) for part in parts]


def _identified(
    part: Part, known: Mapping[tuple[Any, ...], Sequence[tuple[Part, dict[Any, Any]]]]
) -> Part:
    ids = []
    for row in part.results.metrics.to_dict("records"):
        copies = [copy for other, copy in known.get(_key_without_id(row), ()) if other is not part]
        ids.append(row["attack_id"] or _id_of(row, copies))
    metrics = part.results.metrics.assign(attack_id=ids)
    classes = _identified_classes(part.results.classes, metrics)
    return replace(part, results=replace(part.results, metrics=metrics, classes=classes))


def _id_of(row: Mapping[Any, Any], copies: Sequence[Mapping[Any, Any]]) -> str:
    """Attack id of the copy with the same result, else of any, which is refused later on."""
    same = [copy for copy in copies if all(_equal(copy[name], row[name]) for name in _SAME_RESULT)]
    return next((str(copy["attack_id"]) for copy in (*same, *copies)), "")


def _identified_classes(classes: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Say of per-class rows without attack id which evaluation they are of, where one fits."""
    if "attack_id" in classes or classes.empty:
        return classes
    single = metrics[~metrics.duplicated(["run_id", "attack"], keep=False)]
    named = [name for name in MATCHED if name not in classes]
    facts = single.set_index(["run_id", "attack"])[named]
    rows = pd.MultiIndex.from_frame(classes[["run_id", "attack"]])
    found = facts.reindex(rows).set_index(classes.index)
    found["attack_id"] = found["attack_id"].fillna("")
    return pd.concat([classes, found], axis="columns")


def _merged_metrics(parts: Sequence[Part]) -> pd.DataFrame:
    """All metric rows, each run and attack once, with all that any of its copies knows.

    Raises:
        UserError: directories contradict each other.
    """
    if len(parts) < 2:
        return _concat([part.results.metrics for part in parts], METRICS_COLUMNS)
    seen: dict[tuple[Any, ...], tuple[Part, list[dict[Any, Any]]]] = {}
    kept = []
    for part in parts:
        for row in part.results.metrics.to_dict("records"):
            first, copies = seen.setdefault(_key(row), (part, []))
            if first is part:
                copies = [] if copies else copies  # twice in one file stays twice
                kept.append(copies)
            else:
                _check_same(first, copies[0], part, row)
            copies.append(row)
    rows = _completed([_one_row(copies) for copies in kept], parts)
    frame = csv_files.in_order(pd.DataFrame(rows), METRICS_COLUMNS)
    return frame.astype(dict.fromkeys(MAYBE_COUNTS, "Int64"))


def _one_row(copies: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """The copy that knows most, its gaps filled from the others."""
    best = max(copies, key=lambda copy: _known(copy, copy))
    row = dict(best)
    for copy in copies:
        gaps = [name for name in copy if _missing(name, row.get(name))]
        row |= {name: copy[name] for name in gaps if name not in (*_TIMING, *_RELIABILITY)}
    # a time belongs to the device that it was measured on
    timed = max((best, *copies), key=lambda copy: _known(copy, _TIMING))
    return row | {name: timed[name] for name in _TIMING}


def _completed(rows: Sequence[dict[Any, Any]], parts: Sequence[Part]) -> list[dict[Any, Any]]:
    """Tell all rows of a run that stands in several parts what any of them knows of the run."""
    by_run: defaultdict[str, dict[Path, list[dict[Any, Any]]]] = defaultdict(dict)
    for part in parts:
        for row in part.results.metrics.to_dict("records"):
            by_run[row["run_id"]].setdefault(part.path, []).append(row)
    facts = {
        run_id: _facts([row for own in places.values() for row in own])
        for run_id, places in by_run.items()
        if len(places) > 1
    }
    done = []
    for row in rows:
        known = facts.get(row["run_id"], {})
        gaps = {name for name in known if name in _RELIABILITY or _missing(name, row[name])}
        done.append(row | {name: known[name] for name in gaps})
    return done


def _facts(rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """What rows of one run know of it; of reliability checks all that any copy flagged."""
    facts: dict[str, Any] = {}
    for name in _RUN_WIDE:
        known = [row[name] for row in rows if not _missing(name, row[name])]
        facts |= {name: known[0]} if known else {}
    texts = [row["reliability"] for row in rows if isinstance(row["reliability"], str)]
    checks = dict.fromkeys(name for text in texts for name in text.split(";") if name)
    reports = {row["reliability_report"] for row in rows}
    if checks or "yes" in reports:
        return facts | {"reliability": ";".join(checks), "reliability_report": "yes"}
    if "no" in reports:
        return facts | {"reliability": None, "reliability_report": "no"}
    return facts | {"reliability": texts[0] if texts else None, "reliability_report": ""}


def _known(row: Mapping[Any, Any], names: Iterable[str]) -> int:
    return sum(not _missing(name, row[name]) for name in names)


def _missing(name: str, value: Any) -> bool:
    """Whether a cell is empty or has what stands in for a column that an older file lacks."""
    return bool(pd.isna(value)) or value == "" or value == LATER_COLUMNS.get(name, "")


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Run and attack; older files may have no attack id."""
    if row["attack_id"]:
        return str(row["run_id"]), str(row["attack_id"])
    return _key_without_id(row)


def _key_without_id(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    settings = row["attack"], round(float(row["eps"]), 9), row["attack_settings"], int(row["n"])
    return str(row["run_id"]), *settings


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
    """Whether two numbers agree; two missing ones do."""
    both_missing = math.isnan(one) and math.isnan(other)
    return both_missing or bool(math.isclose(one, other, rel_tol=0, abs_tol=1e-9))


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


def _best_blocks(
    parts: Sequence[Part], frame_of: Callable[[Part], pd.DataFrame], columns: Sequence[str]
) -> pd.DataFrame:
    """Rows of every run and attack, from the part that has most columns, of equals the first."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    frames = [frame_of(part) for part in parts]
    frames.sort(key=lambda frame: len(set(columns) - set(frame.columns)))
    for frame in frames:
        names = [name for name in ("run_id", "attack", "attack_id") if name in frame]
        keys = list(frame[names].itertuples(index=False, name=None))
        kept.append(frame[[key not in seen for key in keys]])
        seen |= set(keys)
    return csv_files.in_order(_concat(kept, columns), columns)


def _concat(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Frames one below the other; no rows give the columns alone."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(filled, ignore_index=True)


def _filled(comparisons: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Put stored intervals where outcomes are missing; a pair must agree about its difference."""
    stored: defaultdict[tuple[Any, ...], list[dict[Any, Any]]] = defaultdict(list)
    for row in known.to_dict("records"):
        stored[_lead_key(row)].append(row)
    rows = []
    for row in comparisons.to_dict("records"):
        missing = row["verdict"] == UNKNOWN and row["basis"] == PAIRED
        for old in stored[_lead_key(row)] if missing else ():
            same_images = pd.isna(row["n"]) or row["n"] == old["n"]
            if same_images and _equal(old["difference"], row["difference"]):
                row |= {name: old[name] for name in ("n", "low", "high", "p", "verdict", "basis")}
                break
        rows.append(row)
    return pd.DataFrame(rows, columns=comparisons.columns).astype({"n": "Int64"})


def _lead_key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return *(row[name] for name in _LEAD_KEY), round(float(row["eps"]), 9)
