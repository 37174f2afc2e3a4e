"""plan.json: what is to be done in a suite's directory, fully resolved, for who did not plan it.

Workers do runs by it and `status` counts by it; neither resolves a device, a precision or a path
again. What one bench plans is added to what others planned there. Workers of a launcher have a file
of their driver's own, in `plans/`, which never changes: what another bench plans meanwhile, with
another device or other attacks, is nothing to jobs that are queued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
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
from ltrobust.results.claims import ClaimedError, claimed
from ltrobust.results.files import write_changed
from ltrobust.results.records import Part, Record, check_key, read_record, to_bytes
from ltrobust.results.store import SuiteStore

PATIENCE = 60.0
"""Seconds to wait for others who write the file."""


class FurtherPart(Part):
    """Other test images of a run.

    Attributes:
        test: the test images.
        attacks: what to attack with.
        cell: place of the settings that they come from, where these are not the plan's.
    """

    test: TestSpec
    attacks: list[AttackSpec]
    cell: int | None


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
        further: other test images that it is attacked on as well.
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
    further: list[FurtherPart]

    @model_validator(mode="after")
    def _is_its_key(self) -> PlannedPart:
        check_key(self.run, self.run_id)
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
    cells = [one.cell, *(part.cell for part in one.further)]
    return [one.settings, *(cell for cell in cells if cell is not None)]


def write_plan(plan: Plan, suite: SuiteStore) -> None:
    """Add the runs of a plan to a suite's plan.json, in the place of what it says of them.

    A damaged file is written anew.
    """
    with _alone(suite):
        known: dict[str, Plan] = {}
        if suite.plan_file.is_file():
            with suppress(UserError):
                known = read_plan(suite)
        write_changed(suite.plan_file, _content({**known, **_apart(plan)}))


def fixed_plan(plan: Plan, suite: SuiteStore, *, write: bool = True) -> Path:
    """A file of this plan alone, named by its content, for workers whom no other plan concerns.

    Args:
        plan: what to do.
        suite: where.
        write: whether to write it; else only its name is told.

    Returns:
        Its absolute path.
    """
    content = _content(_apart(plan))
    file = suite.plans.absolute() / f"{hashlib.sha256(content).hexdigest()[:16]}.json"
    if write:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_changed(file, content)
    return file


@contextmanager
def plan_in_use(plan: Plan, suite: SuiteStore) -> Iterator[Path]:
    """`fixed_plan`, which nobody drops for as long as the block lasts."""
    file = fixed_plan(plan, suite, write=False)
    with ExitStack() as held:
        with suppress(ClaimedError):  # another command does the same plan
            held.enter_context(_claim_on(file, suite))
        yield fixed_plan(plan, suite)


def _claim_on(file: Path, suite: SuiteStore) -> AbstractContextManager[object]:
    return claimed(suite.claims, f"plan-{file.stem}")


def runs_in_use(suite: SuiteStore) -> set[str]:
    """Runs of the plans that commands are at work on."""
    found: set[str] = set()
    for file, runs in _plan_files(suite):
        try:
            with _claim_on(file, suite):
                pass
        except ClaimedError:
            found |= runs
    return found


def drop_plans(suite: SuiteStore, kept: Collection[str]) -> None:
    """Remove the plans of drivers that are gone, none of whose runs is there, planned or kept."""
    known = {*kept, *(read_plan(suite) if suite.plan_file.is_file() else ())}
    for file, runs in _plan_files(suite):
        if known.isdisjoint(runs) and not any(suite.run(one).path.exists() for one in runs):
            with suppress(ClaimedError), _claim_on(file, suite):
                file.unlink(missing_ok=True)


def _plan_files(suite: SuiteStore) -> Iterator[tuple[Path, set[str]]]:
    """Files of drivers, each with its runs; a damaged one is for its driver to write anew."""
    for file in sorted(suite.plans.glob("*.json")):
        with suppress(UserError):
            yield file, set(read_plan(suite, file))


def _apart(plan: Plan) -> dict[str, Plan]:
    """Run ids of a plan, each with a plan of this one run that holds in any process."""
    found = _absolute(plan)
    return {p.run.run_id: replace(found, runs=(p,)) for p in found.runs}


def forget(run_ids: Collection[str], suite: SuiteStore) -> None:
    """Take runs out of a suite's plan.json, if there is one; it goes with its last run."""
    if suite.plan_file.is_file():
        with _alone(suite):
            kept = {key: one for key, one in read_plan(suite).items() if key not in run_ids}
            if kept:
                write_changed(suite.plan_file, _content(kept))
            else:
                suite.plan_file.unlink()


def read_plan(suite: SuiteStore, file: Path | None = None) -> dict[str, Plan]:
    """All that is planned in a suite's directory: run ids, each with a plan of this one run.

    Args:
        suite: where.
        file: one driver's plan; None: plan.json, with all.

    Raises:
        UserError: there is no plan, or the file is damaged.
    """
    if file is not None and not file.is_file():
        raise UserError(f"there is no {file}; the bench that wrote it, given again, writes it anew")
    if file is None and not suite.plan_file.is_file():
        raise UserError(
            f"{suite.path} holds no plan.json; ltrobust bench writes it, and `ltrobust runs "
            f"{suite.path}` lists what is there without one"
        )
    record = read_record(PlanRecord, file or suite.plan_file)
    return {one.run_id: _as_plan(one, record.settings) for one in record.runs}


def planned_run(
    suite: SuiteStore, run_id: str, file: Path | None = None
) -> tuple[PlannedRun, Plan]:
    """One run of a suite's plan, or of one driver's, and how it is done.

    Raises:
        UserError: as `read_plan`, or the run is not planned.
    """
    found = read_plan(suite, file)
    if run_id not in found:
        raise UserError(
            f"{run_id} is not planned in {file or suite.path}; "
            f"`ltrobust status {suite.path}` shows what is"
        )
    plan = found[run_id]
    return plan.runs[0], plan


def _as_plan(one: PlannedPart, settings: list[Settings]) -> Plan:
    def part(found: PlannedPart | FurtherPart) -> PlannedRun:
        cell = None if found.cell is None else settings[found.cell]
        return PlannedRun(one.run, found.test, tuple(found.attacks), one.base, cell)

    planned = replace(part(one), further=tuple(map(part, one.further)))
    return Plan(settings[one.settings], one.device, (planned,), one.threads)


def _absolute(plan: Plan) -> Plan:
    """The plan with settings that mean the same in any process and any working directory."""
    known: dict[Settings, Settings] = {}

    def resolved(settings: Settings) -> Settings:
        if settings not in known:
            known[settings] = _resolved(settings)
        return known[settings]

    def whole(one: PlannedRun) -> PlannedRun:
        cell = None if one.cell is None else resolved(one.cell)
        return replace(one, cell=cell, further=tuple(map(whole, one.further)))

    return replace(plan, settings=resolved(plan.settings), runs=tuple(map(whole, plan.runs)))


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


def _content(plans: dict[str, Plan]) -> bytes:
    settings: dict[Settings, int] = {}

    def place(one: Settings) -> int:
        return settings.setdefault(one, len(settings))

    runs = []
    for run_id, plan in plans.items():
        (planned,) = plan.runs
        cells = [
            None if part.cell in (None, plan.settings) else place(part.cell)
            for part in planned.parts
        ]
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
                cell=cells[0],
                further=[
                    FurtherPart(test=part.test, attacks=list(part.attacks), cell=cell)
                    for part, cell in zip(planned.further, cells[1:], strict=True)
                ],
            )
        )
    return to_bytes(PlanRecord(settings=list(settings), runs=runs))


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
