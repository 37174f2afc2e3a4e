"""plan.json: what is to be done in a suite's directory, fully resolved, for who did not plan it.

Workers do runs by it and `status` counts by it; neither resolves a device, a precision or a path
again. What one bench plans is added to what others planned there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import model_validator

from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.bench.settings import Settings
from ltrobust.config import AttackSpec, Run, TestSpec
from ltrobust.data import LOCAL_PREFIXES
from ltrobust.data.opening import data_root
from ltrobust.errors import UserError
from ltrobust.results.files import write_changed
from ltrobust.results.records import Part, Record, read_record, to_bytes
from ltrobust.results.store import SuiteStore

PATIENCE = 60.0
"""Seconds to wait for others who write the file."""


class PlannedPart(Part):
    """One run as it stands in plan.json.

    Attributes:
        run_id: its key, to be read.
        run: what to train.
        test: the test images.
        attacks: what to attack with.
        base: run id of the run that a post-hoc one acts on.
        device: where it computes.
        threads: CPU threads where neither its settings nor its own beginning say any.
        settings: place of the settings that say how it is done, in the file's list.
        cell: place of those that it comes from, where they are others.
    """

    run_id: str
    run: Run
    test: TestSpec
    attacks: list[AttackSpec]
    base: str | None
    device: str
    threads: int | None
    settings: int
    cell: int | None

    @model_validator(mode="after")
    def _is_its_key(self) -> PlannedPart:
        if self.run.run_id != self.run_id:
            raise ValueError(f"run has the key {self.run.run_id}, not {self.run_id}")
        return self


class PlanRecord(Record):
    """plan.json."""

    remedy = "delete it; the same bench writes it again"

    settings: list[Settings]
    runs: list[PlannedPart]

    @model_validator(mode="after")
    def _settings_are_there(self) -> PlanRecord:
        if any(not 0 <= n < len(self.settings) for one in self.runs for n in _places(one)):
            raise ValueError("a run names settings that are not there")
        return self


def _places(one: PlannedPart) -> list[int]:
    return [one.settings] if one.cell is None else [one.settings, one.cell]


def write_plan(plan: Plan, suite: SuiteStore) -> None:
    """Add the runs of a plan to a suite's plan.json, in the place of what it says of them.

    A damaged file is written anew.
    """
    with _alone(suite):
        known: dict[str, Plan] = {}
        if suite.plan_file.is_file():
            with suppress(UserError):
                known = read_plan(suite)
        found = _absolute(plan)
        ours = {p.run.run_id: replace(found, runs=(p,)) for p in found.runs}
        _write({**known, **ours}, suite)


def forget(run_ids: Collection[str], suite: SuiteStore) -> None:
    """Take runs out of a suite's plan.json, if there is one."""
    if suite.plan_file.is_file():
        with _alone(suite):
            kept = {key: one for key, one in read_plan(suite).items() if key not in run_ids}
            _write(kept, suite)


def read_plan(suite: SuiteStore) -> dict[str, Plan]:
    """All that is planned in a suite's directory: run ids, each with a plan of this one run.

    Raises:
        UserError: there is no plan, or plan.json is damaged.
    """
    if not suite.plan_file.is_file():
        raise UserError(
            f"{suite.path} holds no plan.json; ltrobust bench writes it, and `ltrobust runs "
            f"{suite.path}` lists what is there without one"
        )
    record = read_record(PlanRecord, suite.plan_file)
    return {one.run_id: _as_plan(one, record.settings) for one in record.runs}


def planned_run(suite: SuiteStore, run_id: str) -> tuple[PlannedRun, Plan]:
    """One run of a suite's plan, and how it is done.

    Raises:
        UserError: as `read_plan`, or the run is not planned.
    """
    found = read_plan(suite)
    if run_id not in found:
        raise UserError(
            f"{run_id} is not planned in {suite.path}; `ltrobust status {suite.path}` shows what is"
        )
    plan = found[run_id]
    return plan.runs[0], plan


def _as_plan(one: PlannedPart, settings: list[Settings]) -> Plan:
    cell = None if one.cell is None else settings[one.cell]
    planned = PlannedRun(one.run, one.test, tuple(one.attacks), one.base, cell)
    return Plan(settings[one.settings], one.device, (planned,), one.threads)


def _absolute(plan: Plan) -> Plan:
    """The plan with settings that mean the same in any process and any working directory."""
    known: dict[Settings, Settings] = {}

    def resolved(settings: Settings) -> Settings:
        if settings not in known:
            known[settings] = _resolved(settings)
        return known[settings]

    runs = tuple(
        replace(one, cell=None if one.cell is None else resolved(one.cell)) for one in plan.runs
    )
    return replace(plan, settings=resolved(plan.settings), runs=runs)


def _resolved(settings: Settings) -> Settings:
    changed: dict[str, Any] = {
        "data_dir": data_root(settings.data_dir).absolute(),
        "plugin": tuple(path.expanduser().absolute() for path in settings.plugin),
        "output": settings.output_dir.absolute(),
        # who submits a run has cleared it; the next turn of a worker must not
        "overwrite": "failed" if settings.overwrite == "all" else settings.overwrite,
        "save_every": settings.saving,
    }
    if settings.dataset.startswith(LOCAL_PREFIXES):
        kind, _, path = settings.dataset.partition(":")
        changed["dataset"] = f"{kind}:{Path(path).expanduser().absolute()}"
    return settings.model_copy(update=changed)


def _write(plans: dict[str, Plan], suite: SuiteStore) -> None:
    settings: dict[Settings, int] = {}

    def place(one: Settings) -> int:
        return settings.setdefault(one, len(settings))

    runs = []
    for run_id, plan in plans.items():
        (planned,) = plan.runs
        cell = planned.cell
        runs.append(
            PlannedPart(
                run_id=run_id,
                run=planned.run,
                test=planned.test,
                attacks=list(planned.attacks),
                base=planned.base,
                device=plan.device,
                threads=plan.threads,
                settings=place(plan.settings),
                cell=None if cell in (None, plan.settings) else place(cell),
            )
        )
    record = PlanRecord(settings=list(settings), runs=runs)
    write_changed(suite.plan_file, to_bytes(record))


@contextmanager
def _alone(suite: SuiteStore) -> Iterator[None]:
    """While it lasts no other bench writes the plan, where the file system has locks."""
    suite.claims.mkdir(parents=True, exist_ok=True)
    lock = FileLock(suite.claims / ".plan.lock", timeout=PATIENCE, fallback_to_soft=False)
    with suppress(OSError, NotImplementedError):  # a Timeout is an OSError too
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()
