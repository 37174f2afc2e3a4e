"""One report of one or several directories: what the command and `ltrobust.report` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltrobust.bench.collect import SuiteResults, write_report
from ltrobust.bench.filters import Filters
from ltrobust.bench.merge import check_directory, check_output, gather, rebuild
from ltrobust.bench.store import SuiteStore
from ltrobust.evaluation.metrics import Grouping


def make_report(
    directories: Sequence[Path],
    filters: Filters,
    grouping: Grouping | None,
    across: Sequence[str],
    output: Path | None,
) -> tuple[SuiteResults, SuiteStore | None]:
    """Rebuild one directory in place, or put together what was asked for.

    Args:
        directories: suites' directories, or folders with metrics.csv and per_class.csv.
        filters: which results.
        grouping: how head, medium and tail are cut; None for thirds.
        across: what rows of one table may differ in.
        output: where the report is written. Without it a single directory is rebuilt in place,
            and several, a filter or `across` are written nowhere.

    Returns:
        What the report is made of, and where it was written, None for nowhere.

    Raises:
        UserError: see `gather`; `output` is no place for it.
    """
    only = {path.resolve(): path for path in directories}
    if len(only) == 1 and output is None and not filters.chosen and not across:
        check_directory(directories[0])
        store = SuiteStore(directories[0])
        with store.lock():
            return rebuild(store, grouping), store
    if output is None:
        return gather(directories, filters, grouping, across), None
    store = SuiteStore(output)
    check_output(store.path, directories)
    results = gather(directories, filters, grouping, across)
    with store.lock():
        write_report(store, results)
    return results, store
