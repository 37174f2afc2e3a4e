"""How long a plan will take and how much memory, measured on the spot with a few images of noise.

Orders of magnitude, told before hours are spent; nothing else depends on them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from ltrobust.attacks.pgd import input_gradient
from ltrobust.bench.crew import processes
from ltrobust.bench.plan import Plan, PlannedRun, thrift, use_device, watched_attacks
from ltrobust.bench.provenance import device_memory
from ltrobust.combination import find
from ltrobust.config import AttackSpec, DataSpec, Run
from ltrobust.data import LongTailedData, dataset_spec
from ltrobust.data.split import long_tail_counts
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import check_attacks
from ltrobust.models import build_model
from ltrobust.results.store import RunStore, SuiteStore
from ltrobust.threads import computing_with
from ltrobust.training import feed
from ltrobust.training.engine import TrainingModel
from ltrobust.training.memory import Costs, MemoryNeed, measure, outer_passes
from ltrobust.training.trainer import build, own_epochs

PROBE = 16
ROBUST_SHARE = 0.3
"""Share of test images assumed to stand through AutoAttack: they cost nearly all of its time."""
AUTOATTACK_PASSES = 1900 + 2 * 900 // 3 + 5000 // 3
"""Forward-backward passes for an image that stands: two APGD, FAB-T, and Square's forwards."""
HOURS_WARNING = 2 * 3600


@dataclass(frozen=True)
class Estimate:
    """Seconds a plan will take, and a warning when that is hours on a CPU ("" otherwise)."""

    seconds: float
    warning: str


Probes = dict[tuple[str, str, tuple[int, int, int]], float]
"""Seconds for one image, by architecture, precision and shape of the images."""


def estimate(
    plan: Plan,
    store: SuiteStore,
    load: Callable[[PlannedRun], LongTailedData],
    probes: Probes | None = None,
) -> Estimate:
    """Estimate what is left to do of a plan.

    Args:
        plan: what to do.
        store: what is there already.
        load: gives the data of a run.
        probes: what was measured before; what is measured here is added.
    """
    use_device(plan.device)  # before the first tensor: freed memory is kept from here on
    seconds = 0.0
    probes = {} if probes is None else probes
    for planned in plan.runs:
        data = load(planned)
        watched = watched_attacks(planned.run, plan.settings).values()
        for attacks in (watched, *(part.attacks for part in planned.parts)):
            check_attacks(attacks, data.num_classes, data.test_images.shape)
        key = (planned.run.arch, planned.run.precision, data.image_shape)
        if key not in probes:
            with computing_with(plan.settings.threads or plan.threads):
                probes[key] = _probe_or_nothing(planned, data, plan.device)
        seconds += _left(planned, plan, store, load) * probes[key]
    warning = ""
    if plan.device == "cpu" and seconds > HOURS_WARNING:
        warning = (
            f"this is hours of work on a CPU: {', '.join(sorted({k[0] for k in probes}))}; "
            "consider --arch small-cnn, fewer --epochs, or a GPU"
        )
    return Estimate(seconds, warning)


def _left(
    planned: PlannedRun,
    plan: Plan,
    store: SuiteStore,
    load: Callable[[PlannedRun], LongTailedData],
) -> float:
    """Image passes (forward and backward) that a run still needs."""
    run, epochs = store.run(planned.run.run_id), own_epochs(planned.run)
    there: Collection[str] = ()
    if plan.settings.overwrite != "all":
        run.check_whole()  # what is wrong with it shows before anything is done
        run.record()
        there = run.attacks()
        wanted = planned.attack_ids().keys() - there
        epochs = 0 if run.trained or not wanted else epochs - len(run.history())
    together = processes(plan.settings)
    images = len(load(planned).train_labels)
    passes = epochs * images * training_passes(planned.run, together)
    for part in planned.parts:
        missing = [spec for key, spec in part.attack_ids().items() if key not in there]
        passes += len(load(part).test_labels) * sum(map(_attack_passes, missing)) / together
    return passes


PASSES = re.compile(r"(?:(?P<factor>[\d.]+ )?(?P<steps>K)|(?P<fixed>\d+)) \+ (?P<outer>\d+)")
"""How methods tell their passes, such as "K + 1", "5 K + 1" or "2 + 1"."""


FLOPS = {"cpu": 3e10, "cuda": 3e13}
"""Operations a second that a device is taken to make: the order of runs needs no more."""
UNKNOWN = 10_000, (3, 32, 32)
"""Training images, and their shape, of data sets that are not known unread."""


def lengths(runs: Sequence[PlannedRun], plan: Plan, store: SuiteStore) -> dict[str, float]:
    """Guess how many seconds each run still takes, by run id, from numbers of operations alone.

    No data is loaded and nothing is timed: the machine may be another than that of the runs.
    """
    speed = FLOPS["cpu" if plan.device == "cpu" else "cuda"]
    together = processes(plan.settings)
    return {one.run.run_id: _operations(one, store, together) / speed for one in runs}


def _operations(planned: PlannedRun, store: SuiteStore, together: int) -> float:
    run, known = planned.run, training_set(planned.run.data)
    images = run.data.limit_train or (sum(known.class_counts) if known else UNKNOWN[0])
    shape = known.image_shape if known else UNKNOWN[1]
    epochs, there = own_epochs(run), store.run(run.run_id)
    made = set(there.attack_ids())
    epochs = 0 if there.trained else max(0, epochs - _epochs_of(there))
    passes = epochs * images * training_passes(run, together)
    for part in planned.parts:
        missing = [spec for key, spec in part.attack_ids().items() if key not in made]
        passes += (part.test.limit or UNKNOWN[0]) * sum(map(_attack_passes, missing)) / together
    return 6 * passes * _forward_operations(run.arch, shape)


def _epochs_of(store: RunStore) -> int:
    try:
        return len(store.history())
    except UserError:  # its worker will tell
        return 0


@cache
def _forward_operations(arch: str, shape: tuple[int, int, int]) -> float:
    """Multiplications by weights in a forward pass of one image; 1 where they cannot be counted."""
    channels, height, width = shape
    counts: list[float] = []

    def count(layer: nn.Conv2d | nn.Linear, _: object, output: torch.Tensor) -> None:
        counts.append(output.numel() * layer.weight.numel() / layer.weight.shape[0])

    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            net = build_model(arch, num_classes=10, in_channels=channels, image_size=height).eval()
            for layer in net.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.register_forward_hook(count)
            net(torch.zeros(1, channels, net.input_size or height, net.input_size or width))
    except Exception:  # somebody else's network: its run will tell what is wrong
        return 1.0
    return sum(counts) or 1.0


def training_passes(run: Run, together: int = 1) -> float:
    """Passes of an image in a training step, as the method tells them; one that trains the weights
    counts one and a half. AWP makes those twice.

    Args:
        run: gives method and attack.
        together: processes that share out the passes of the attack, and each make the others.
    """
    combination, steps = find(run.method), run.recipe.attack.steps
    told = PASSES.match(combination.defense.passes)
    attack, outer = float(steps), 1.0
    if told is not None:
        attack = steps * float(told["factor"] or 1) if told["steps"] else float(told["fixed"])
        outer = float(told["outer"])
    elif combination.defense.passes.isdecimal():
        attack, outer = 0.0, float(combination.defense.passes)
    again = any(part.name == "awp" for part in combination.parts)
    return attack / together + 1.5 * outer * (2 if again else 1)


def _attack_passes(spec: AttackSpec) -> float:
    if spec.kind == "autoattack":
        return ROBUST_SHARE * AUTOATTACK_PASSES
    return 0.6 * (spec.steps or 0) + 0.3


def _probe_or_nothing(planned: PlannedRun, data: LongTailedData, device: str) -> float:
    """0 when the network cannot be built or run: the run itself will tell why."""
    try:
        return _probe(planned, data, device)
    except UserError:
        raise
    except Exception:
        return 0.0


def _probe(planned: PlannedRun, data: LongTailedData, device: str) -> float:
    """Seconds for one image, forward and back to the input."""
    model = TrainingModel(
        build(planned.run, data.train_counts, data.image_shape).net.to(device),
        planned.run.precision,
    )
    model.eval().requires_grad_(False)
    channels, height, _ = data.image_shape
    size = model.net.input_size or height
    x = torch.rand(PROBE, channels, size, size, device=device)
    y = torch.zeros(PROBE, dtype=torch.long, device=device)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        input_gradient(model, x, y, F.cross_entropy).sum().item()
        times.append(time.perf_counter() - began)
    return min(times) / PROBE


@dataclass(frozen=True)
class TrainingSet:
    """What the memory estimate must know of a training set."""

    class_counts: tuple[int, ...]
    image_shape: tuple[int, int, int]


LARGEST_CLASS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "digits-lt": (120, (1, 8, 8)),
    "cifar10-lt": (5000, (3, 32, 32)),
    "cifar100-lt": (500, (3, 32, 32)),
}
"""Training images of the largest class, and their shape, of data sets that are known unread."""


def training_set(data: DataSpec) -> TrainingSet | None:
    """The training set that a run asks for, without loading it; None for image folders."""
    classes = dataset_spec(data.name).num_classes
    if classes is None or data.name not in LARGEST_CLASS:
        return None
    n_max, shape = LARGEST_CLASS[data.name]
    ratio = data.imbalance_ratio or 1.0
    counts = long_tail_counts(n_max, classes, ratio, data.imbalance_type)
    return TrainingSet(tuple(counts), shape)


def loaded_training_set(data: LongTailedData) -> TrainingSet:
    """The same of data that is there."""
    return TrainingSet(data.train_counts, data.image_shape)


def memory_needs(
    plan: Plan, known: Callable[[PlannedRun], TrainingSet | None]
) -> dict[str, MemoryNeed]:
    """Estimate the memory that each run's training takes on a CUDA device, by run id.

    Left out are runs whose training set is not known and networks that cannot be run on noise.

    Args:
        plan: the runs.
        known: gives the training set of a run.
    """
    measured: dict[tuple[object, ...], Costs] = {}
    passes: dict[tuple[object, ...], float] = {}
    needs = {}
    limit = None if plan.settings.remote else device_memory(plan.device)
    for planned in plan.runs:
        run, data = planned.run, known(planned)
        if data is None:
            continue
        shape = (data.image_shape, len(data.class_counts))
        arch = (run.arch, run.precision, shape)
        # the weight of a term takes no memory, unless it is zero
        options = {k: v != 0 if isinstance(v, float) else v for k, v in run.options.items()}
        method = (run.method, str(options), shape)
        try:
            if arch not in measured:
                measured[arch] = measure(run, data.class_counts, data.image_shape)
            if method not in passes:
                passes[method] = outer_passes(run, data.class_counts)
        except (
            Exception
        ):  # a defense or network of anybody's: the run itself will tell what is wrong
            continue
        channels, height, width = data.image_shape
        images = run.data.limit_train or sum(data.class_counts)
        data_bytes = images * (channels * height * width + 8)
        if limit and data_bytes > feed.SHARE * limit:
            data_bytes = 0  # they come batch by batch
        needs[run.run_id] = MemoryNeed(
            measured[arch],
            min(run.recipe.batch_size, images),
            passes[method],
            data_bytes=data_bytes,
            judged=run.select != "last",
            thrift=thrift(plan.settings),
        )
    return needs


def memory_warning(plan: Plan, needs: dict[str, MemoryNeed]) -> str:
    """One line when a run needs more memory than the plan's CUDA device has, else "".

    What devices of other machines have is not known here.
    """
    limit = None if plan.settings.remote else device_memory(plan.device)
    large = {key: need for key, need in needs.items() if limit and need.bytes() > limit}
    if not large or limit is None:
        return ""
    worst = max(large, key=lambda key: large[key].bytes())
    others = f" (and {len(large) - 1} more)" if len(large) > 1 else ""
    return (
        f"{worst}{others} needs about {gigabytes(large[worst].bytes())} of memory to train and "
        f"{plan.device} has {gigabytes(limit)}; {_proposals(large[worst].thriftier(limit))}"
    )


def _proposals(changes: Sequence[tuple[str, int]]) -> str:
    if not changes:
        return "a smaller --arch may fit"
    return "try " + ", then ".join(f"{flag} ({gigabytes(size)})" for flag, size in changes)


def gigabytes(size: int) -> str:
    """A number of bytes in GB of 1e9 bytes."""
    return f"{size / 1e9:.1f} GB"
