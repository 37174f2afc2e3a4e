"""How long a plan will take, measured on the spot: one small batch through the real network.

An order of magnitude, told before hours are spent; nothing else depends on it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ltrobust.attacks.pgd import input_gradient
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.bench.store import SuiteStore
from ltrobust.config import AttackSpec
from ltrobust.data import LongTailedData
from ltrobust.errors import UserError
from ltrobust.training.engine import TrainingModel
from ltrobust.training.trainer import build

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


def estimate(plan: Plan, store: SuiteStore, load: Loader) -> Estimate:
    """Estimate what is left to do of a plan.

    Args:
        plan: what to do.
        store: what is there already.
        load: gives the data of a run.
    """
    seconds = 0.0
    probes: dict[tuple[str, str], float] = {}
    for planned in plan.runs:
        data = load(planned)
        key = (planned.run.arch, planned.run.precision)
        if key not in probes:
            probes[key] = _probe_or_nothing(planned, data, plan.device)
        seconds += _left(planned, store, data) * probes[key]
    warning = ""
    if plan.device == "cpu" and seconds > HOURS_WARNING:
        warning = (
            f"this is hours of work on a CPU: {', '.join(sorted({k[0] for k in probes}))}; "
            "consider --arch small-cnn, fewer --epochs, or a GPU"
        )
    return Estimate(seconds, warning)


def in_words(seconds: float) -> str:
    """A duration in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _left(planned: PlannedRun, store: SuiteStore, data: LongTailedData) -> float:
    """Image passes (forward and backward) that a run still needs."""
    run, recipe = store.run(planned.run.run_id), planned.run.recipe
    epochs = recipe.epochs - len(run.history())
    passes = 0.0
    if not run.trained:
        passes += epochs * len(data.train_labels) * (recipe.attack.steps + 1.5)
    there = run.read().get("evaluations", {})
    for attack_id, spec in planned.attack_ids().items():
        if attack_id not in there:
            passes += len(data.test_labels) * _attack_passes(spec)
    return passes


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
