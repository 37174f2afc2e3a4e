"""Equal tuning: of several settings of a method, the best on held-out training images is attacked.

With `--select val` every setting is trained without the held-out images and judged on them at its
last epoch; the test images are attacked for the chosen setting of each method alone. How many
settings were tried, by this bench and by earlier ones in its directory, stands beside the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pandas as pd

from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.bench.runner import Failure
from ltrobust.combination import find
from ltrobust.config import Run
from ltrobust.errors import UserError
from ltrobust.progress import Reporter
from ltrobust.results.records import TuningRecord
from ltrobust.results.store import SuiteStore

VAL = "val"
JUDGED_BY = "balanced accuracy under PGD-10 on held-out training images"


@dataclass(frozen=True)
class Trial:
    """One setting of a method: its runs, one a seed, and how it was judged.

    Attributes:
        runs: the runs.
        score: mean over the seeds, in [0, 1]; nan where a run has none.
        tried: settings of the method that compete with it, itself included.
        chosen: whether it is the best of them; the first one of equals.
    """

    runs: tuple[PlannedRun, ...]
    score: float
    tried: int
    chosen: bool


def tuned(plan: Plan) -> tuple[PlannedRun, ...]:
    """The runs of a plan among whose settings it chooses.

    Raises:
        UserError: a post-hoc modifier, which is not judged, is among their methods.
    """
    found = tuple(planned for planned in plan.runs if planned.run.select == VAL)
    for planned in found:
        if find(planned.run.method).base is not None:
            raise UserError(
                f"--select val does not judge {planned.run.method}, which acts on a trained run; "
                "leave it out, or use another --select"
            )
    return found


def run_tuned(
    plan: Plan, store: SuiteStore, run: Callable[[Plan], list[Failure]], reporter: Reporter
) -> list[Failure]:
    """Train every setting, then attack the chosen ones; return the runs that failed.

    Args:
        plan: what to do.
        store: where it is stored.
        run: does a plan, wherever.
        reporter: who is told.

    Raises:
        UserError: as `tuned`.
    """
    judged = tuned(plan)
    if not judged:
        return run(plan)
    others = tuple(planned for planned in plan.runs if planned not in judged)
    failures = run(replace(plan, runs=others)) if others else []
    plan = replace(plan, runs=judged)
    untested = plan.settings.model_copy(update={"no_checks": True})
    bare = tuple(planned.bare() for planned in plan.runs)
    failures += run(replace(plan, settings=untested, runs=bare))
    rivals = (*earlier(plan, store), *plan.runs)
    found = trials(rivals, {p.run.run_id: _score(store, p.run) for p in rivals})
    for trial in found:
        for planned in trial.runs:
            stored = store.run(planned.run.run_id)
            if stored.record() is not None:
                stored.write_tuning(
                    TuningRecord(
                        run_id=stored.run_id,
                        tried=trial.tried,
                        score=_number(trial.score),
                        chosen=trial.chosen,
                        judged_by=JUDGED_BY,
                    )
                )
        reporter.line(_line(trial))
    best = {p.run.run_id for trial in found if trial.chosen for p in trial.runs}
    chosen = tuple(planned for planned in plan.runs if planned.run.run_id in best)
    kept = plan.settings.model_copy(update={"overwrite": "never"})  # what was begun anew just now
    again = kept if plan.settings.overwrite == "all" else plan.settings
    return failures + run(replace(plan, settings=again, runs=chosen))


def earlier(plan: Plan, store: SuiteStore) -> list[PlannedRun]:
    """Runs in a suite's directory that a plan does not name and whose settings compete with its."""
    planned = {one.run.run_id for one in plan.runs}
    rivalries = {_rivalry(one.run) for one in plan.runs}
    found = []
    for stored in (one for one in store.runs() if one.run_id not in planned):
        with suppress(UserError):  # the report will tell
            run = stored.begun_record().run
            if isinstance(run, Run) and _rivalry(run) in rivalries and stored.trained:
                found.append(PlannedRun(run, plan.runs[0].test, ()))
    return found


def trials(runs: Sequence[PlannedRun], scores: Mapping[str, float]) -> list[Trial]:
    """Sort runs into settings, and choose the best of each method, data set and architecture.

    Args:
        runs: all runs of a grid.
        scores: of each run by its id, nan where it has none; such a setting is not chosen.
    """
    rivals: dict[str, dict[str, list[PlannedRun]]] = {}
    for planned in runs:
        rivals.setdefault(_rivalry(planned.run), {}).setdefault(_setting(planned.run), []).append(
            planned
        )
    found = []
    for settings in rivals.values():
        means = {
            name: sum(scores[p.run.run_id] for p in group) / len(group)
            for name, group in settings.items()
        }
        known = [name for name, mean in means.items() if not math.isnan(mean)]
        best = max(known, key=means.__getitem__, default=None)
        found += [
            Trial(tuple(group), means[name], len(settings), name == best)
            for name, group in settings.items()
        ]
    return found


def _rivalry(run: Run) -> str:
    """What settings that compete have in common: all but options, recipe and seed; of the recipe
    the epochs, and the radius, at which they are judged.
    """
    common = run.model_dump(mode="json", exclude={"options", "recipe", "seed"})
    return json.dumps([common, run.recipe.epochs, run.recipe.attack.eps], sort_keys=True)


def _setting(run: Run) -> str:
    return json.dumps(run.model_dump(mode="json", include={"options", "recipe"}), sort_keys=True)


def _score(store: SuiteStore, run: Run) -> float:
    """How a run was judged after its last epoch; nan where it is not trained."""
    history: pd.DataFrame = store.run(run.run_id).history()
    if not store.run(run.run_id).trained or "val_robust_acc" not in history:
        return math.nan
    return float(history["val_robust_acc"].iloc[-1])


def _number(score: float) -> float | None:
    return None if math.isnan(score) else score


def _line(trial: Trial) -> str:
    run = trial.runs[0].run
    options = ", ".join(f"{key}={value}" for key, value in run.options.items()) or "no options"
    seeds = f" (mean of {len(trial.runs)} seeds)" if len(trial.runs) > 1 else ""
    mark = ", chosen" if trial.chosen else ""
    return (
        f"{run.method} on {run.data.name}, {options}: {100 * trial.score:.2f} held out{seeds}, "
        f"1 of {trial.tried} tried{mark}"
    )
