"""How far each run of a plan is, as its files say it: for the driver, `status` and `runs`.

Nothing is locked or written, so that it may be asked at any time, while workers write.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ltrobust.bench.checks import lacks_reliability
from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.errors import UserError
from ltrobust.evaluation.examples import is_example_attack
from ltrobust.progress import in_words
from ltrobust.results.claims import holder
from ltrobust.results.records import now
from ltrobust.results.store import RunStore, SuiteStore
from ltrobust.training.trainer import own_epochs

State = Literal["waiting", "running", "lost", "failed", "done"]
STATES: tuple[State, ...] = ("running", "waiting", "lost", "failed", "done")
RECENT = 5
"""Epochs and runs of which the time that is left is reckoned."""


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        run_id: the run.
        state: waiting for a worker (new or stopped), running, lost (its worker died), failed, done.
        where: who does it or did it last; "" where nobody does.
        since: when its present worker began, UTC; "" without one.
        epoch: epochs of its own that are behind it.
        epochs: those that it takes.
        attacks: planned attacks that are made.
        planned_attacks: all of them.
        left: seconds to its end, None where that is not known.
        reason: why it failed, or what is wrong with its files.
    """

    run_id: str
    state: State
    where: str
    since: str
    epoch: int
    epochs: int
    attacks: int
    planned_attacks: int
    left: float | None
    reason: str

    def row(self) -> dict[str, Any]:
        """As `--json` gives it."""
        return asdict(self)

    def progress(self) -> str:
        """How far, in words."""
        if self.state == "done":
            return ""
        if self.epoch < self.epochs:
            return f"epoch {self.epoch}/{self.epochs}"
        return f"attacks {self.attacks}/{self.planned_attacks}"

    def told(self) -> str:
        """All but the id and the state, in a line."""
        since = f"since {clock(self.since)}" if self.since else ""
        left = f"about {in_words(self.left)} left" if self.left is not None else ""
        if self.state in ("done", "failed"):
            return self.reason
        parts = (self.progress(), self.where, since, left, self.reason)
        return ", ".join(part for part in parts if part)


def clock(time: str) -> str:
    """A record's time as a clock on this machine shows it, with the date unless it is today's."""
    try:
        then = datetime.fromisoformat(time).astimezone()
    except ValueError:
        return time
    today = then.date() == datetime.fromisoformat(now()).astimezone().date()
    return then.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")


def finished(planned: PlannedRun, store: RunStore, *, no_checks: bool) -> bool:
    """Whether nothing of a run is left to do, as far as that is seen without its data.

    Raises:
        UserError: a file of it is damaged.
    """
    store.check_whole()
    attacks = planned.attack_ids()
    if store.failure is not None or not attacks.keys() <= set(store.attack_ids()):
        return False
    if not store.trained:  # its weights may be gone
        return bool(attacks)
    if not no_checks:
        images = {one.test_sha256 for one in store.attacks(attacks).values()}
        if lacks_reliability(store, images):
            return False
    return store.has_examples or not any(is_example_attack(a.name) for a in attacks.values())


def standing(plan: Plan, suite: SuiteStore, pace: Mapping[str, float] | None = None) -> Standing:
    """How far the only run of a plan is.

    Args:
        plan: one run and how it is done.
        suite: where it is stored.
        pace: seconds that attacks take, as `paces` gives them.
    """
    (planned,) = plan.runs
    store = suite.run(planned.run.run_id)
    held = holder(suite.claims, store.run_id)
    epochs, wanted = _epochs(planned), planned.attack_ids()
    base = Standing(
        run_id=store.run_id,
        state="waiting",
        where="" if held is None else str(held),
        since="" if held is None else held.since,
        epoch=0,
        epochs=epochs,
        attacks=0,
        planned_attacks=len(wanted),
        left=None,
        reason="",
    )
    try:
        history = store.history()
        epoch = epochs if store.trained else min(epochs, len(history))
        made = wanted.keys() & set(store.attack_ids())
        found = replace(base, epoch=epoch, attacks=len(made))
        if held is not None and held.alive:
            seconds = history["seconds"].tolist()[-RECENT:] if "seconds" in history else []
            missing = [spec.name for key, spec in wanted.items() if key not in made]
            left = _left(epochs - epoch, seconds, missing, pace or {})
            return replace(found, state="running", left=left)
        if finished(planned, store, no_checks=plan.settings.no_checks):
            return replace(found, state="done")
        if store.failure is not None:
            return replace(found, state="failed", reason=store.failure)
        if held is not None:
            return replace(found, state="lost", reason="its worker is gone")
        return replace(found, reason="stopped" if store.begun else "")
    except UserError as error:
        return replace(base, state="failed", reason=str(error))


def _epochs(planned: PlannedRun) -> int:
    """Epochs of its own; of a fine-tuning whose code, a plugin's, is not loaded here, 0."""
    try:
        return own_epochs(planned.run)
    except UserError:
        return planned.run.recipe.epochs if planned.base is None else 0


def _left(
    epochs: int, seconds: Sequence[float], attacks: Sequence[str], pace: Mapping[str, float]
) -> float | None:
    """Seconds for what a run lacks; None where the length of a part is not known."""
    if (epochs and not seconds) or any(name not in pace for name in attacks):
        return None
    training = epochs * statistics.fmean(seconds) if epochs else 0.0
    return training + sum(pace[name] for name in attacks)


def paces(plans: Sequence[Plan], suite: SuiteStore) -> dict[str, dict[str, float]]:
    """Seconds that each attack took on a few finished runs, by architecture."""
    taken: dict[str, dict[str, list[float]]] = {}
    counted: Counter[str] = Counter()
    for plan in plans:
        (planned,) = plan.runs
        arch, store = planned.run.arch, suite.run(planned.run.run_id)
        if counted[arch] >= RECENT or not store.attack_ids():
            continue
        counted[arch] += 1
        try:
            records = store.attacks().values()
        except UserError:
            continue
        for record in records:
            taken.setdefault(arch, {}).setdefault(record.attack, []).append(record.seconds)
    return {
        arch: {name: statistics.median(values) for name, values in found.items()}
        for arch, found in taken.items()
    }


def standings(plans: Mapping[str, Plan], suite: SuiteStore) -> list[Standing]:
    """How far each run of a suite's plan is, in the order of the plan."""
    pace = paces(list(plans.values()), suite)
    return [standing(plan, suite, pace.get(plan.runs[0].run.arch)) for plan in plans.values()]


def counted(found: Sequence[Standing]) -> str:
    """How many runs there are in each state."""
    counts = Counter(one.state for one in found)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def progress_of(store: RunStore) -> tuple[int, int, int]:
    """What grows while a run is worked on: epochs, finished parts, last save of a long attack.

    Never falls while nothing is removed but the first number, which begins anew where nothing was
    saved.
    """
    try:
        epochs = len(store.history())
    except UserError:
        epochs = 0
    parts = sum(1 for folder in ("attacks", "probes") for _ in (store.path / folder).glob("*.json"))
    parts += sum((store.path / name).is_file() for name in ("trained.json", "reliability.json"))
    saved = max(map(_changed, store.path.glob("*.part.safetensors")), default=0)
    return epochs, parts, saved


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:  # it ended meanwhile
        return 0
