"""Reports of one or several directories: from the records of their runs to tables, figures, page.

Only records are read, and a figure that shows images or curves reads those. No lock is needed: a
report shows what is there when it is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import pandas as pd

from ltrobust.bench.leads import leads
from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import THIRDS, Grouping
from ltrobust.output import printable
from ltrobust.report import Rendered, render_board
from ltrobust.report.board import Board, make_board
from ltrobust.report.groups import Group, comparable_groups
from ltrobust.report.page import board_page
from ltrobust.report.style import DEFAULT_LOOK, Look
from ltrobust.results.collect import JudgedRun, collect, gaps, places, read_run
from ltrobust.results.custom import own_metrics
from ltrobust.results.filters import Filters, check_filters, filtered
from ltrobust.results.frames import confusion_table, metrics_table, run_rows
from ltrobust.results.store import RunStore, SuiteStore


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
        gaps: what could not be made for want of outcomes, one line each.
        across: what rows of one table may differ in.
        groups: the metrics sorted into what may be compared.
    """

    metrics: pd.DataFrame
    classes: pd.DataFrame
    confusion: pd.DataFrame
    comparisons: pd.DataFrame
    histories: Mapping[str, pd.DataFrame]
    examples: Mapping[str, pd.DataFrame]
    gaps: tuple[str, ...]
    across: tuple[str, ...]
    groups: Sequence[Group]

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per method and setting, as in leaderboard.csv."""
        return self.board.leaderboard

    @cached_property
    def board(self) -> Board:
        """What tables, figures and page show."""
        return make_board(
            self.groups,
            self.classes,
            self.histories,
            self.comparisons,
            self.confusion,
            self.examples,
        )

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The frames that become CSV files, by their names."""
        return {
            "metrics.csv": self.metrics,
            "per_class.csv": self.classes,
            "confusion.csv": self.confusion,
            "comparisons.csv": self.comparisons,
        }


def make_report(
    directories: Sequence[Path],
    filters: Filters,
    grouping: Grouping | None,
    across: Sequence[str],
    output: Path | None,
    look: Look = DEFAULT_LOOK,
) -> tuple[SuiteResults, SuiteStore | None]:
    """Rebuild one directory in place, or put together what was asked for.

    Args:
        directories: suites' directories.
        filters: which results.
        grouping: how head, medium and tail are cut; None for thirds.
        across: what rows of one table may differ in.
        output: where the report is written. Without it a single directory is rebuilt in place,
            and several, a filter or `across` are written nowhere.
        look: of figures and LaTeX tables.

    Returns:
        What the report is made of, and where it was written, None for nowhere.

    Raises:
        UserError: see `gather`; `output` is no place for it.
    """
    in_place = output is None and not filters.chosen and not across
    if in_place and len({path.resolve() for path in directories}) == 1:
        store = SuiteStore(directories[0])
    elif output is not None:
        store = SuiteStore(output)
        _check_output(store.path, directories)
    else:
        return gather(directories, filters, grouping, across), None
    results = gather(directories, filters, grouping, across)
    store.prepare()
    write_report(store, results, look)
    return results, store


def gather(
    directories: Sequence[Path],
    filters: Filters,
    grouping: Grouping | None = None,
    across: Sequence[str] = (),
) -> SuiteResults:
    """Put the results of directories together; a run that several of them hold counts once.

    Args:
        directories: one or more suites' directories; the same one twice counts once.
        filters: which results.
        grouping: how head, medium and tail are cut; None for thirds.
        across: what rows of one table may differ in, from `parse_across`.

    Raises:
        UserError: a directory has no evaluated run, a file is damaged, a filter matches nothing,
            the grouping does not fit the number of classes, or two directories contradict each
            other about a run.
    """
    for directory in directories:
        runs = SuiteStore(directory).runs()
        if not runs:
            raise UserError(
                f"{directory} holds no runs; give a suite's directory (results/<suite>)"
            )
        if not any(run.attack_ids() for run in runs):
            raise UserError(f"{directory} holds no evaluated run yet; run ltrobust bench first")
    wanted = [read_run(*stores) for stores in _wanted(directories, filters)]
    return results_of(wanted, grouping or THIRDS, across)


def _wanted(directories: Sequence[Path], filters: Filters) -> list[tuple[RunStore, ...]]:
    """Where the runs lie that filters leave; what is left out may contradict itself.

    Raises:
        UserError: they leave nothing.
    """
    found = [
        stores for stores in places(directories) if any(store.attack_ids() for store in stores)
    ]
    if not filters.chosen:
        return found
    rows = run_rows([read_run(*stores, only=()) for stores in found])
    check_filters(rows, filters)
    return [stores for stores, keep in zip(found, filtered(rows, filters), strict=True) if keep]


def build_report(store: SuiteStore) -> SuiteResults:
    """Rebuild every table and figure of a suite; return what they are made of.

    Nothing is written when no run has been evaluated yet.

    Raises:
        UserError: a file is damaged.
    """
    results = results_of(collect([store.path]))
    if not results.metrics.empty:
        write_report(store, results)
    return results


def results_of(
    runs: Sequence[JudgedRun], grouping: Grouping = THIRDS, across: Sequence[str] = ()
) -> SuiteResults:
    """Make the frames of a report; runs without an evaluation have no part in it.

    Raises:
        UserError: the grouping does not fit the number of classes.
    """
    runs = [run for run in runs if run.evaluations]
    metrics, classes = metrics_table(runs, grouping)
    groups = comparable_groups(metrics, across) if len(metrics) else []
    histories = {run.run_id: run.history() for run in runs}
    examples = {run.run_id: run.examples() for run in runs}
    return SuiteResults(
        metrics,
        classes,
        confusion_table(runs),
        leads(groups, runs, grouping),
        {run_id: frame for run_id, frame in histories.items() if len(frame)},
        {run_id: frame for run_id, frame in examples.items() if len(frame)},
        gaps(runs),
        tuple(across),
        groups,
    )


def write_report(store: SuiteStore, results: SuiteResults, look: Look = DEFAULT_LOOK) -> None:
    """Write the CSV files of results, their tables, figures and page; stale ones go.

    Nothing is made again where what is written was made of the same and is all there; else the
    figures that were drawn from the same stay.
    """
    frames = {name: frame.to_csv(index=False) for name, frame in results.tables.items()}
    made_of = _made_of(results, frames.values(), store, look)
    if not store.holds_report(made_of):
        made = rendered(results, store, look)
        store.write_reports({**frames, **made.files}, made_of, made.drawn)


def rendered(results: SuiteResults, store: SuiteStore, look: Look = DEFAULT_LOOK) -> Rendered:
    """Leaderboard, tables, page and what figures have changed, by their names in the directory."""
    made = render_board(results.board, store.drawn(), look)
    known = [name for name, frame in results.tables.items() if not frame.empty]
    made.files["index.html"] = board_page(
        results.board, title=_title(store), downloads=["leaderboard.csv", *known]
    )
    return made


def _title(store: SuiteStore) -> str:
    return printable(store.path.resolve().name)


def _made_of(results: SuiteResults, frames: Iterable[str], store: SuiteStore, look: Look) -> str:
    """Tells a report from every other: what it shows and the code that shows it."""
    own = [metric.meaning for metric in own_metrics()]
    digest = hashlib.sha256(json.dumps([_title(store), results.across, own, str(look)]).encode())
    for text in frames:
        digest.update(text.encode())
    for name, frame in results.histories.items():
        digest.update(name.encode() + frame.to_csv(index=False).encode())
    for name, frame in results.examples.items():
        numbers = frame[["index", "label", "pred_clean", "pred_adv", "attack", "eps"]]
        digest.update(name.encode() + numbers.to_csv(index=False).encode())
        for images in (frame["clean"], frame["adversarial"]):
            digest.update(b"".join(image.tobytes() for image in images))
    for package in ("ltrobust.report", "ltrobust.methods"):
        folder = Path(str(files(package)))
        for file in sorted(path for path in folder.rglob("*") if path.suffix != ".pyc"):
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def _check_output(output: Path, directories: Sequence[Path]) -> None:
    """Refuse to write a report over results that it was not made from alone.

    Raises:
        UserError: the output is one of the directories, or holds runs of its own.
    """
    if output.resolve() in {path.resolve() for path in directories}:
        raise UserError(f"--output {output} is a directory that is read; choose another")
    if SuiteStore(output).runs():
        raise UserError(f"--output {output} holds runs of its own; choose another directory")
