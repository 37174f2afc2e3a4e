"""From settings to the list of runs: methods x imbalance ratios x seeds, fully resolved.

A plan loads no data and trains nothing, so `--dry-run` is instant and shows exactly what would run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import ValidationError

from ltrobust.allocator import keep_freed_memory
from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.settings import Settings
from ltrobust.combination import Combination, canonical, find, named
from ltrobust.config import AttackSpec, DataSpec, Recipe, Run, TestSpec, TrainingAttack
from ltrobust.data import DatasetSpec, data_fingerprint, data_label, dataset_spec
from ltrobust.data.catalog import checked_ratio
from ltrobust.errors import UserError, unknown
from ltrobust.method import METHODS, load_methods
from ltrobust.models import arch_source, canonical_arch
from ltrobust.results.store import SuiteStore
from ltrobust.team import LEAST
from ltrobust.training.schedule import ONE_CYCLE, UNIFIED
from ltrobust.training.trainer import Thrift, base_run
from ltrobust.yaml_files import parse


@dataclass(frozen=True)
class PlannedRun:
    """One run with the attacks it is to be judged by.

    Attributes:
        run: what to train.
        test: the test images.
        attacks: what to attack with.
        base: run id of the trained run that a post-hoc run acts on, which stands before it.
        cell: the settings that it comes from, where they are not those of the whole plan.
        further: the same run on other test images, as other cells of a grid ask for it.
    """

    run: Run
    test: TestSpec
    attacks: tuple[AttackSpec, ...]
    base: str | None = None
    cell: Settings | None = None
    further: tuple[PlannedRun, ...] = ()

    @property
    def parts(self) -> tuple[PlannedRun, ...]:
        """The run on each set of test images, one after the other."""
        return (replace(self, further=()), *self.further)

    def bare(self) -> PlannedRun:
        """The run without its attacks."""
        return replace(self, attacks=(), further=())

    def with_more(self, other: PlannedRun) -> PlannedRun:
        """The run with what another plan of it asks as well."""
        parts = {part.test: part for part in self.parts}
        for part in other.parts:
            known = parts.setdefault(part.test, part)
            attacks = {**known.attack_ids(), **part.attack_ids()}
            parts[part.test] = replace(known, attacks=tuple(attacks.values()))
        first, *further = parts.values()
        return replace(first, further=tuple(further))

    def attack_ids(self) -> dict[str, AttackSpec]:
        """The attacks on all sets of test images by their id."""
        return {spec.attack_id(one.test): spec for one in self.parts for spec in one.attacks}


@dataclass(frozen=True)
class Plan:
    """All runs of a suite, in the order in which they are done.

    Attributes:
        settings: what was asked for.
        device: where the runs compute.
        runs: what to do.
        threads: CPU threads of a run for which neither the settings nor its own beginning say any;
            None: torch's choice.
    """

    settings: Settings
    device: str
    runs: tuple[PlannedRun, ...]
    threads: int | None = None


Fingerprints = dict[tuple[str, Path | None], str]
"""Identities of data by name and data directory: those of image folders take a while."""


def make_plan(settings: Settings) -> Plan:
    """Resolve settings into runs.

    Raises:
        UserError: an unknown name, a device that is not there, a recipe that does not fit.
    """
    load_methods(settings.plugin)
    return _plan_of(settings, {})


def _plan_of(settings: Settings, fingerprints: Fingerprints) -> Plan:
    """The same with all methods loaded; what is found of data is added to `fingerprints`."""
    names = _method_names(settings.methods)
    chosen = _chosen_options(settings.option)
    parts = {part.name for name in names for part in find(name).parts}
    for name in chosen:
        if name not in (*parts, RECIPE):
            raise UserError(f"--option for {name}, which is not among --methods {','.join(names)}")
    spec = dataset_spec(settings.dataset)
    device = device_of(settings)
    check_devices(settings.devices_per_run, device, seen=not settings.remote)
    test = TestSpec(protocol=settings.test_protocol, limit=settings.limit_test)
    eps = spec.eps if settings.eps is None else settings.eps
    attacks = attack_specs(settings, eps)
    for name in settings.watch or ():
        attack_spec(name, eps)  # an unknown one is told now
    data_key = settings.dataset, settings.data_dir
    if data_key not in fingerprints:
        fingerprints[data_key] = data_fingerprint(*data_key)
    ratios = [checked_ratio(r) for r in settings.imbalance_ratio or (spec.imbalance_ratio,)]
    runs = []
    for ratio in ratios:
        data = DataSpec(
            name=data_label(settings.dataset),
            imbalance_ratio=ratio,
            imbalance_type=settings.imbalance_type,
            split_seed=settings.split_seed,
            limit_train=settings.limit_train,
            fingerprint=fingerprints[data_key],
        )
        for seed in settings.seeds:
            for name in names:
                run = _resolve_run(find(name), settings, chosen, spec, data, seed, test, device)
                check_batch(settings.devices_per_run, run)
                runs += [PlannedRun(one, test, attacks, base) for one, base in _with_bases(run)]
    unique = {planned.run.run_id: planned for planned in runs}
    return Plan(settings, device, tuple(unique.values()))


def make_grid(cells: Sequence[Settings]) -> Plan:
    """Resolve the cells of a grid into one plan; a run that several share is planned once.

    Raises:
        UserError: as `make_plan`.
    """
    fingerprints: Fingerprints = {}
    load_methods(cells[0].plugin)  # the same in all
    plans = [_plan_of(cell, fingerprints) for cell in cells]
    runs = (replace(planned, cell=plan.settings) for plan in plans for planned in plan.runs)
    return replace(plans[0], runs=joined(runs))


def joined(runs: Iterable[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Each run once, in its first place, with all that is asked of it."""
    found: dict[str, PlannedRun] = {}
    for planned in runs:
        known = found.get(planned.run.run_id)
        found[planned.run.run_id] = planned if known is None else known.with_more(planned)
    return tuple(found.values())


def _with_bases(run: Run) -> list[tuple[Run, str | None]]:
    """A run after those that it acts on, each with the id of the one that it acts on itself."""
    if find(run.method).base is None:
        return [(run, None)]
    base = base_run(run)
    return [*_with_bases(base), (run, base.run_id)]


def attack_specs(settings: Settings, eps: float) -> tuple[AttackSpec, ...]:
    """The attacks that settings ask for, at an L-inf radius of `eps`."""
    search: Literal["bf16"] | None = "bf16" if settings.search == "bf16" else None
    return tuple(
        attack_spec(name, eps, seed=settings.attack_seed, search=search)
        for name in settings.attacks
    )


def thrift(settings: Settings) -> Thrift:
    """How the trainings of a plan save memory."""
    return Thrift(settings.grad_checkpointing, settings.micro_batch)


def device_of(settings: Settings) -> str:
    """The device of a plan: one that is there, or with a cluster the kind that was asked for.

    Raises:
        UserError: it is not there, or not said for a cluster.
    """
    if not settings.remote:
        return resolve_device(settings.device)
    if settings.device not in ("cpu", "cuda"):
        raise UserError(
            f"--device {settings.device}: what the machines of --launcher {settings.launcher} have "
            "cannot be seen from here; say --device cuda or --device cpu"
        )
    return settings.device


def precision_of(settings: Settings, device: str) -> str:
    """The precision of a plan's runs; on the CUDA devices of a cluster `auto` is bf16."""
    if settings.remote and settings.precision == "auto":
        return "bf16" if device == "cuda" else "fp32"
    return resolve_precision(settings.precision, device)


def resolve_device(name: str) -> str:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device that is there, or raise UserError."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind != "cuda" or (":" in name and not number.isdecimal()):
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:N"])
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= there:
        found = f"{there} CUDA device{'s' if there != 1 else ''}" if there else "no CUDA device"
        raise UserError(f"device {name} is not there: this machine has {found}; use cpu or auto")
    return name


def use_device(name: str) -> str:
    """The same for a process that computes there: sets what holds for the whole of it.

    AutoAttack seeds the current device only.
    """
    device = resolve_device(name)
    if device == "cpu":
        keep_freed_memory()
        return device
    if ":" in device:
        torch.cuda.set_device(torch.device(device))
    return device


def resolve_precision(name: str, device: str) -> str:
    """`auto` is bf16 on CUDA devices that have it, fp32 elsewhere."""
    if name != "auto":
        return name
    return (
        "bf16"
        if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
        else "fp32"
    )


def check_devices(number: int, device: str, *, seen: bool = True) -> None:
    """Raise UserError unless there are so many devices for one run.

    Args:
        number: of devices.
        device: what they are.
        seen: whether they are this machine's; those of others are looked at there.
    """
    if number == 1:
        return
    flag = f"--devices-per-run {number}"
    if ":" in device:
        raise UserError(
            f"{flag} and --device {device}, which is one; use --device cuda "
            "(CUDA_VISIBLE_DEVICES chooses among the machine's)"
        )
    if not seen:
        return
    if device == "cpu":
        there, what = cores(), "CPU cores, of which each process takes one"
    else:
        there, what = torch.cuda.device_count(), "CUDA devices"
    if number > there:
        raise UserError(f"{flag}: this machine has {there} {what}")
    if device != "cpu" and not torch.distributed.is_nccl_available():
        raise UserError(f"{flag}: this torch was built without NCCL, through which GPUs talk")


def check_batch(number: int, run: Run) -> None:
    """Raise UserError where a run's batches are too small to be shared out."""
    least = LEAST * number
    if number > 1 and run.recipe.batch_size < least:
        raise UserError(
            f"--devices-per-run {number} shares out batches of at least {least} images, and "
            f"{run.method} has {run.recipe.batch_size}; give fewer devices or a larger --batch-size"
        )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(slots: int, each: int = 1) -> int | None:
    """CPU threads of each of several processes that share the cores; None: torch's choice for one.

    Args:
        slots: runs at once.
        each: processes of a run.
    """
    return None if slots * each == 1 else max(1, cores() // (slots * each))


def watched_attacks(run: Run, settings: Settings) -> dict[str, AttackSpec]:
    """The attacks by which the curve of a training is watched on the test set, by name."""
    return {name: attack_spec(name, run.recipe.attack.eps) for name in settings.watch or ()}


STATES = ("new", "stopped", "failed", "trained", "evaluated")
"""How far a run can have come."""


def cached(plan: Plan, store: SuiteStore) -> dict[str, str]:
    """What is there already, by run id: "new", "trained", "evaluated", "failed" or "stopped"."""
    return {planned.run.run_id: _cached(planned, store) for planned in plan.runs}


def _cached(planned: PlannedRun, store: SuiteStore) -> str:
    run = store.run(planned.run.run_id)
    run.check_whole()
    record = run.record()
    if run.failure is not None:
        return "failed"
    if planned.attack_ids().keys() <= run.attacks().keys():
        return "evaluated"
    return "trained" if run.trained else "stopped" if record is not None else "new"


def _method_names(asked: tuple[str, ...]) -> list[str]:
    names: list[str] = []
    for name in asked:
        names += named(name)
    return list(dict.fromkeys(canonical(name) for name in names))


def _resolve_run(
    method: Combination,
    settings: Settings,
    chosen: dict[str, dict[str, Any]],
    spec: DatasetSpec,
    data: DataSpec,
    seed: int,
    test: TestSpec,
    device: str,
) -> Run:
    if settings.recipe == "paper":
        arch, recipe, options = _paper(method, settings, spec)
    else:
        common = fast if settings.recipe == "fast" else unified
        arch, recipe, options = settings.arch or spec.arch, common(settings, spec), {}
    recipe = _override(recipe, chosen.get(RECIPE, {}))
    return Run(
        method=method.name,
        options=method.check_options({**options, **_own(chosen, method)}),
        method_source=method.source,
        data=data,
        arch=canonical_arch(arch),
        arch_source=arch_source(arch),
        recipe_name=settings.recipe,
        recipe=recipe,
        seed=seed,
        select=settings.select,
        select_on=test if settings.select == "best-on-test" else None,
        precision=precision_of(settings, device),  # type: ignore[arg-type]
    )


def _own(chosen: dict[str, dict[str, Any]], method: Combination) -> dict[str, Any]:
    """The chosen options of a combination's parts, as the combination calls them."""
    own = dict(chosen.get(method.defense.name, {}))
    for part in method.parts[1:]:
        own |= {f"{part.name}.{key}": value for key, value in chosen.get(part.name, {}).items()}
    return own


RECIPE = "recipe"
"""In place of a method's name: the option is a value of every run's recipe."""


def _override(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Set single values of a recipe, such as lr or attack.steps; UserError when one is wrong."""
    content = recipe.model_dump()
    for path, value in values.items():
        *parents, last = path.split(".")
        place = content
        for part in parents:
            place = place.get(part, {}) if isinstance(place, dict) else {}
        if not isinstance(place, dict) or last not in place:
            known = [*Recipe.model_fields, *(f"attack.{k}" for k in TrainingAttack.model_fields)]
            raise unknown("value of the recipe", path, known)
        place[last] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"--option recipe.{name}: {problem['msg']}") from None


def _chosen_options(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Turn texts such as "taet.count_absent=true" into options by owner; values are YAML.

    The owner is a method, or "recipe" for a value of the recipe.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        method, dot, option = left.strip().partition(".")
        if not (equals and dot and option):
            raise UserError(f"--option '{text}' must look like taet.count_absent=true")
        try:
            parsed = parse(value)
        except yaml.YAMLError:
            raise UserError(f"--option '{text}': '{value}' is no plain value") from None
        owner = method if method == RECIPE else METHODS.canonical(method)
        chosen.setdefault(owner, {})[option] = parsed
    return chosen


def unified(settings: Settings, spec: DatasetSpec) -> Recipe:
    """The recipe that trains every defense alike."""
    eps = spec.eps if settings.eps is None else settings.eps
    return Recipe(
        epochs=settings.epochs or spec.epochs,
        batch_size=settings.batch_size or spec.batch_size,
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule=UNIFIED,
        attack=TrainingAttack(eps=eps, step_size=eps / 4, steps=10, start="uniform"),
        augment=settings.augment or "none",
    )


def fast(settings: Settings, spec: DatasetSpec) -> Recipe:
    """The recipe for few epochs: two passes a step, a one-cycle rate, everything else unified.

    The inner attack is N-FGSM (de Jorge et al., NeurIPS 2022): one step of eps from uniform noise
    of twice eps, clipped to [0, 1] and not to the ball. Epochs, rate and its course are theirs too.
    """
    common = unified(settings, spec)
    eps = common.attack.eps
    return common.model_copy(
        update={
            "epochs": settings.epochs or FAST_EPOCHS,
            "lr": 0.2,
            "schedule": ONE_CYCLE,
            "attack": TrainingAttack(
                eps=eps,
                step_size=eps,
                steps=1,
                start="uniform-clipped",
                start_scale=2.0,
                project=False,
            ),
        }
    )


FAST_EPOCHS = 30


def _paper(
    method: Combination, settings: Settings, spec: DatasetSpec
) -> tuple[str, Recipe, dict[str, Any]]:
    """The recipe of a method's authors, with the values that the user set in its place."""
    paper = method.recipe
    if paper is None:
        raise UserError(f"method {method.name} carries no paper recipe; use --recipe unified")
    own = spec.name in paper.datasets
    if not own and (settings.arch is None or settings.epochs is None):
        raise UserError(
            f"the paper recipe of {method.name} is for {' and '.join(paper.datasets)}; "
            f"for {spec.name} give --arch and --epochs, or use --recipe unified"
        )
    recipe = paper.recipe
    changes: dict[str, Any] = {}
    for key in ("epochs", "batch_size", "augment"):
        if getattr(settings, key) is not None:
            changes[key] = getattr(settings, key)
    eps = settings.eps if settings.eps is not None else None if own else spec.eps
    if eps is not None:
        step = recipe.attack.step_size / recipe.attack.eps * eps
        changes["attack"] = recipe.attack.model_copy(update={"eps": eps, "step_size": step})
    return settings.arch or paper.arch, recipe.model_copy(update=changes), paper.options
