"""The cells of a plan as a table: how far each has come, and how long the rest will take.

A cell is what stands in one table of a report: a data set at one ratio, an architecture, a recipe
and its length where one is asked for, one choice of options. Nothing is trained, and of the data
only labels are read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from ltrobust.bench.estimate import Probes, estimate, gigabytes, memory_needs, training_set
from ltrobust.bench.loader import split_of
from ltrobust.bench.plan import STATES, Plan, PlannedRun, cached, joined
from ltrobust.data import NATURAL, LongTailedData, outline_data
from ltrobust.errors import MissingDataError
from ltrobust.progress import in_words
from ltrobust.results.store import SuiteStore


def cell_rows(plan: Plan, store: SuiteStore) -> tuple[list[list[str]], float, list[str]]:
    """Count the runs of each cell by state and estimate the time that is left.

    Returns:
        Rows of text: data set, ratio, architecture, recipe, epochs, options, runs in each of
        `STATES`, time; the seconds of all; and the data sets whose files are not there, so that
        no time is known.

    Raises:
        UserError: a network does not exist or does not fit the images, or a stored run is damaged.
    """
    states, load = cached(plan, store), _outlined(plan)
    cells: dict[tuple[str, ...], list[PlannedRun]] = {}
    for planned in plan.runs:
        cells.setdefault(_cell(plan, planned), []).append(planned)
    rows, seconds, unread = [], 0.0, []
    probes: Probes = {}
    for cell, runs in cells.items():
        counts = Counter(states[planned.run.run_id] for planned in runs)
        time = "?"
        try:
            load(runs[0])
        except MissingDataError:
            unread.append(cell[0])
        else:
            expected = estimate(replace(plan, runs=tuple(runs)), store, load, probes)
            seconds += expected.seconds
            time = in_words(expected.seconds)
        states_of = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        rows.append([*cell, states_of, time])
    return rows, seconds, list(dict.fromkeys(unread))


def needs_in_words(plans: Sequence[Plan], store: SuiteStore) -> str:
    """Time of all plans and the GPU memory of their largest run, as far as these are known."""
    runs = joined(planned for plan in plans for planned in plan.runs)
    whole = replace(plans[0], runs=runs)  # data are read and networks built once
    _, seconds, unread = cell_rows(whole, store)
    needs = memory_needs(whole, lambda planned: training_set(planned.run.data))
    largest = max((need.bytes() for need in needs.values()), default=0)
    memory = f"; GPU memory: {gigabytes(largest)} at most" if largest else ""
    return f"{time_in_words(seconds, unread)}{memory}"


def time_in_words(seconds: float, unread: Sequence[str]) -> str:
    """What all of it takes, and which data sets that leaves out."""
    missing = f" without {', '.join(unread)}, whose data is not there" if unread else ""
    return f"about {in_words(seconds)} in all{missing}"


def _cell(plan: Plan, planned: PlannedRun) -> tuple[str, ...]:
    run, settings = planned.run, planned.cell or plan.settings
    ratio = NATURAL if run.data.imbalance_ratio is None else f"{run.data.imbalance_ratio:g}"
    recipe = run.recipe_name, "-" if settings.epochs is None else f"{settings.epochs:,}"
    return run.data.name, ratio, run.arch, *recipe, ", ".join(settings.option) or "-"


def _outlined(plan: Plan) -> Callable[[PlannedRun], LongTailedData]:
    """Gives the labels of a run's data, each split once."""
    known: dict[object, LongTailedData] = {}

    def load(planned: PlannedRun) -> LongTailedData:
        split = planned.run.data, planned.test
        if split not in known:
            with warnings.catch_warnings(action="ignore"):
                known[split] = outline_data(**split_of(planned, plan.settings))
        return known[split]

    return load
