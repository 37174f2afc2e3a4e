"""Numbers of a directory's CSV files whose outcomes are gone, kept beside those made anew.

A row is kept when its run still says that it was evaluated so and the outcomes cannot show it any
more. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ltrobust.bench import csv_files
from ltrobust.bench.collect import METRICS_COLUMNS, SuiteResults
from ltrobust.bench.evaluations import JudgedRun
from ltrobust.bench.store import SuiteStore
from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import THIRDS, Grouping, parse_groups

Key = tuple[str, str]
_ANEW = "the same bench or evaluate makes them anew"
_KEPT = f"their numbers are kept as they stand in the CSV files; {_ANEW}"


def kept_metrics(store: SuiteStore, runs: Sequence[JudgedRun]) -> pd.DataFrame:
    """Rows of metrics.csv that the outcomes of a directory's runs cannot give any more.

    Raises:
        UserError: metrics.csv is damaged.
    """
    by_id = {run.run_id: run for run in runs}
    unknown = {run_id for run_id in store.folders() if run_id not in by_id}
    gone = unknown or any(run.lost for run in runs)
    if not gone or not (store.path / "metrics.csv").is_file():
        return pd.DataFrame(columns=METRICS_COLUMNS)
    stored = csv_files.read_metrics(store.path)
    wanted = [
        bool(attack_id)
        and (run_id in unknown or (run_id in by_id and _is_lost(by_id[run_id], attack_id)))
        for run_id, attack_id in _keys(stored)
    ]
    return stored[wanted]


def cut_of(kept: pd.DataFrame, runs: Sequence[JudgedRun], asked: Grouping | None) -> Grouping:
    """How head, medium and tail are cut where rows are kept: as those rows have it.

    Raises:
        UserError: another cut was asked for.
    """
    if kept.empty:
        return asked or THIRDS
    if asked is not None:
        raise UserError(
            f"--groups needs stored outcomes; those of {_named(kept)} are gone, and their numbers "
            "in metrics.csv are cut already"
        )
    usual = {THIRDS.text(run.train_counts) for run in runs if run.record.get("data")}
    cuts = {str(text) for text in kept["groups"] if text}
    return parse_groups(cuts.pop()) if len(cuts) == 1 and not cuts <= usual else THIRDS


def uncovered(runs: Sequence[JudgedRun], kept: pd.DataFrame) -> list[JudgedRun]:
    """Runs without the evaluations of single seeds that a kept row takes together."""
    ids = [(run_id, set(attack_id.split("+"))) for run_id, attack_id in _keys(kept)]
    return [
        replace(
            run,
            evaluations=tuple(
                one
                for one in run.evaluations
                if not any(
                    run_id == run.run_id and set(one.attack_id.split("+")) <= known
                    for run_id, known in ids
                )
            ),
        )
        for run in runs
    ]


def with_kept(
    results: SuiteResults, kept: pd.DataFrame, store: SuiteStore, runs: Sequence[JudgedRun]
) -> SuiteResults:
    """Results with the kept rows in their places, and a line about what is gone.

    Raises:
        UserError: a CSV file is damaged.
    """
    lost = {run.run_id: run.lost for run in runs if run.lost}
    if not lost and kept.empty:
        return results
    keys, order = set(_keys(kept)), _order(runs)
    return replace(
        results,
        metrics=_joined(results.metrics, _judged_now(kept, runs), keys, order),
        classes=_joined(results.classes, csv_files.read_classes(store.path), keys, order),
        confusion=_joined(results.confusion, csv_files.read_confusion(store.path), keys, order),
        comparisons=csv_files.read_comparisons(store.path),
        gaps=_gaps(kept, runs),
    )


def _is_lost(run: JudgedRun, attack_id: str) -> bool:
    """Whether a stored row is of evaluations in the record that are not all there."""
    ids = set(attack_id.split("+"))
    return ids <= run.record.get("evaluations", {}).keys() and bool(ids & set(run.lost))


def _judged_now(kept: pd.DataFrame, runs: Sequence[JudgedRun]) -> pd.DataFrame:
    """Kept rows with what the run's reliability report says by now, where it judges them."""
    flags = {run.run_id: ";".join(run.flagged) for run in runs if run.flagged is not None}
    judged = kept["run_id"].isin(flags.keys()) & (kept["reliability_report"] == "yes")
    return kept.assign(reliability=kept["reliability"].where(~judged, kept["run_id"].map(flags)))


def _joined(
    made: pd.DataFrame, stored: pd.DataFrame, keys: set[Key], order: dict[Key, int]
) -> pd.DataFrame:
    """Rows made anew with the stored ones of these keys, run by run as the records have them."""
    if "attack_id" not in stored:
        return made
    kept = stored[[key in keys for key in _keys(stored)]]
    if kept.empty or made.empty:
        return made if kept.empty else kept
    both = pd.concat([made, kept], ignore_index=True)
    last = len(order)
    places = [
        (run_id, min(order.get((run_id, part), last) for part in attack_id.split("+")))
        for run_id, attack_id in _keys(both)
    ]
    return both.iloc[sorted(range(len(both)), key=places.__getitem__)].reset_index(drop=True)


def _order(runs: Sequence[JudgedRun]) -> dict[Key, int]:
    """The place of each evaluation in its run's record."""
    return {
        (run.run_id, attack_id): place
        for run in runs
        for place, attack_id in enumerate(run.record.get("evaluations", {}))
    }


def _keys(frame: pd.DataFrame) -> list[Key]:
    pairs = zip(frame["run_id"], frame["attack_id"], strict=True)
    return [(str(run_id), str(attack_id)) for run_id, attack_id in pairs]


def lost_lines(runs: Sequence[JudgedRun]) -> tuple[str, ...]:
    """A line about a directory of which no outcomes are left and the CSV files are taken."""
    names = [
        f"{run.run_id} ({', '.join(run.record['evaluations'][one]['attack'] for one in run.lost)})"
        for run in runs
        if run.lost
    ]
    return (f"the outcomes of {_few(names)} are gone: {_KEPT}",) if names else ()


def _gaps(kept: pd.DataFrame, runs: Sequence[JudgedRun]) -> tuple[str, ...]:
    """What is kept, and what is nowhere any more."""
    known = {(run_id, one) for run_id, ids in _keys(kept) for one in ids.split("+")}
    nowhere = [
        f"{run.run_id} ({run.record['evaluations'][one]['attack']})"
        for run in runs
        for one in run.lost
        if (run.run_id, one) not in known
    ]
    lines = []
    if not kept.empty:
        lines.append(f"the outcomes of {_named(kept)} are gone: {_KEPT}")
    if nowhere:
        lines.append(
            f"the outcomes of {_few(nowhere)} are gone, and metrics.csv has no numbers of them: "
            f"left out; {_ANEW}"
        )
    return tuple(lines)


def _named(kept: pd.DataFrame) -> str:
    """Runs with their attacks in brackets."""
    names = kept.groupby("run_id", sort=False)["attack"].agg(
        lambda names: ", ".join(names.unique())
    )
    return _few([f"{run_id} ({attacks})" for run_id, attacks in names.items()])


def _few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
