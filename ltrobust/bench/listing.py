"""`ltrobust runs`: what runs a suite's directory holds or plans, which of them are meant, and away
with them. How far a run is, `standing` says; what it found, the report.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import pandas as pd

from ltrobust.bench.launch import log_of
from ltrobust.bench.launch.slurm import queued_runs
from ltrobust.bench.plan import Plan
from ltrobust.bench.plan_file import drop_plans, forget, read_plan, runs_in_use
from ltrobust.bench.standing import STATES, State, standings
from ltrobust.config import Run
from ltrobust.data import NATURAL
from ltrobust.errors import UserError, unknown
from ltrobust.results.claims import ClaimedError, claimed, holder
from ltrobust.results.filters import Filters, check_filters, filtered, shown
from ltrobust.results.records import EXTERNAL, ForeignRun
from ltrobust.results.store import RunStore, SuiteStore


@dataclass(frozen=True)
class Listed:
    """A run as it is listed.

    Attributes:
        run_id: its folder's name.
        method: what it trains, or the label of a model of somebody else's.
        dataset: name of its data.
        imbalance_ratio: as it was asked for; nan for all images as they are.
        imbalance_type: kind of the imbalance.
        arch: its network.
        recipe: name of its recipe.
        seed: its seed; None of a foreign model.
        state: see `Standing`; of a run that no plan names "done" where it was attacked.
        attacks: number of attacks that are made.
        bytes: size of its folder.
        base: the run that a post-hoc one acts on, where the plan tells.
    """

    run_id: str
    method: str
    dataset: str
    imbalance_ratio: float
    imbalance_type: str
    arch: str
    recipe: str
    seed: int | None
    state: State
    attacks: int
    bytes: int
    base: str | None

    def row(self) -> dict[str, object]:
        """As `--json` gives it: no nan."""
        ratio = None if pd.isna(self.imbalance_ratio) else self.imbalance_ratio
        return {**asdict(self), "imbalance_ratio": ratio}

    def ratio(self) -> str:
        """The imbalance ratio in words."""
        return NATURAL if pd.isna(self.imbalance_ratio) else shown(float(self.imbalance_ratio))


def listed_runs(
    suite: SuiteStore, filters: Filters, states: Collection[str] = (), seeds: Collection[int] = ()
) -> list[Listed]:
    """The runs of a suite that are planned or there, and of these the ones that are meant.

    Args:
        suite: the suite.
        filters: as for a report.
        states: those of `STATES` that are wanted; empty for all.
        seeds: seeds that are wanted; empty for all.

    Raises:
        UserError: nothing is there or planned, a file is damaged, or no run is meant.
    """
    for state in states:
        if state not in STATES:
            raise unknown("state", state, STATES)
    plans = read_plan(suite) if suite.plan_file.is_file() else {}
    found = [_planned(plan, state, suite) for plan, state in _with_state(plans, suite)]
    found += [_stored(run, suite) for run in suite.runs() if run.run_id not in plans]
    if not found:
        raise UserError(f"{suite.path} holds no runs; give a suite's directory (results/<suite>)")
    if filters.chosen:
        rows = pd.DataFrame([asdict(one) for one in found])
        check_filters(rows, filters)
        found = [one for one, keep in zip(found, filtered(rows, filters), strict=True) if keep]
    found = [one for one in found if not seeds or one.seed in seeds]
    return [one for one in found if not states or one.state in states]


def _with_state(plans: dict[str, Plan], suite: SuiteStore) -> list[tuple[Plan, State]]:
    found = standings(plans, suite)
    return [(plan, one.state) for plan, one in zip(plans.values(), found, strict=True)]


def _planned(plan: Plan, state: State, suite: SuiteStore) -> Listed:
    (planned,) = plan.runs
    return _listed(planned.run, suite.run(planned.run.run_id), state, planned.base)


def _stored(store: RunStore, suite: SuiteStore) -> Listed:
    held = holder(suite.claims, store.run_id)
    state: State = "done" if store.attack_ids() else "waiting"
    if held is not None:
        state = "running" if held.alive else "lost"
    elif store.failure is not None:
        state = "failed"
    return _listed(store.begun_record().run, store, state, None)


def _listed(run: Run | ForeignRun, store: RunStore, state: State, base: str | None) -> Listed:
    ours = run if isinstance(run, Run) else None
    ratio = run.data.imbalance_ratio
    return Listed(
        run_id=store.run_id,
        method=run.method if isinstance(run, Run) else run.label,
        dataset=run.data.name,
        imbalance_ratio=float("nan") if ratio is None else ratio,
        imbalance_type=run.data.imbalance_type,
        arch=run.arch,
        recipe=ours.recipe_name if ours else EXTERNAL,
        seed=ours.seed if ours else None,
        state=state,
        attacks=len(store.attack_ids()),
        bytes=_size(store),
        base=base,
    )


def _size(store: RunStore) -> int:
    total = 0
    for file in store.path.rglob("*"):
        with suppress(OSError):  # it may go while workers write
            total += file.stat().st_size if file.is_file() else 0
    return total


def remove_runs(chosen: Sequence[Listed], suite: SuiteStore) -> tuple[list[str], list[str]]:
    """Remove runs with all that is stored of them, and from the plans.

    Returns:
        Ids of those that are removed, and a line for each that stays: another is doing it, or a
        command or a job that is there is to do it.

    Raises:
        UserError: a run that stays acts on one of them and is not trained.
        RunError: something cannot be removed.
    """
    going = {one.run_id: one for one in chosen}
    plans = read_plan(suite) if suite.plan_file.is_file() else {}
    for run_id, plan in plans.items():
        base = plan.runs[0].base
        if base in going and run_id not in going and not suite.run(run_id).trained:
            raise UserError(f"{run_id} acts on {base} and is not trained; remove both or neither")
    queued = queued_runs(suite.path)
    needed = dict.fromkeys(runs_in_use(suite), "another ltrobust is to do it") | queued
    removed, held = [], []
    for run_id, one in going.items():
        if run_id in needed and one.state != "done":
            held.append(f"{run_id}: {needed[run_id]}")
            continue
        try:
            with claimed(suite.claims, run_id):
                _remove(suite.run(run_id))
        except ClaimedError as error:
            held.append(str(error))
            continue
        log_of(suite.path, run_id).unlink(missing_ok=True)
        removed.append(run_id)
    forget(removed, suite)
    drop_plans(suite, queued)
    return removed, held


def _remove(store: RunStore) -> None:
    """Remove a run's folder; of a link only the link."""
    if store.path.is_symlink():
        store.path.unlink()
        return
    store.clear()
    if store.path.is_dir():
        store.path.rmdir()
