"""One training step of a defense (PGD-10, outer loss, backward, SGD) against the published way.

    python benchmarks/speed/training.py --json training.json

Batch 128 of random images with long-tailed labels, no data path. The plain side is the same
float32 script for fp32 and bf16 cases; all three take turns, each in a process of its own. A turn
of small-cnn is four steps: with one, a process just woken, with cold caches, would be measured.
About 15 minutes on two cores.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import plain
import torch
from _harness import Findings, Make, Options, compare, finish, judged, parse
from _peak import SIZES, matrix_peak, step_gflop
from torch import Tensor

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.data import long_tail_counts
from ltrobust.float32 import true_float32
from ltrobust.graphs import CudaGraphs
from ltrobust.method import Context
from ltrobust.models import build_model
from ltrobust.seeds import generator
from ltrobust.training.captured import WARM, Stepper
from ltrobust.training.engine import TrainingModel
from ltrobust.training.trainer import build, make_optimizer

METHODS = ("pgd-at", "at-bsl", "taet", "trades")
ARCHS = ("small-cnn", "resnet18")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CASES = tuple("/".join(case) for case in itertools.product(METHODS, PRECISIONS, ARCHS))
COUNTS = tuple(long_tail_counts(5000, 10, 50.0, "exp"))
ROUNDS, BUDGET = 9, 90.0
"""Rounds of one defense and architecture at most, and seconds after which none begins."""
TURN = {"small-cnn": 4, "resnet18": 1}
"""Steps in a turn; one of resnet18 takes seconds."""
CUDA_TURN = 10
"""The same on CUDA, where one takes milliseconds and clocks idle between turns."""


def settings_of(what: str, precision: str, arch: str, options: Options) -> Run:
    """A run of the unified recipe on CIFAR-10-LT; no data is read."""
    # the released code's class means, which the plain side computes too
    absent = ["taet.count_absent=true"] if what == "taet" else []
    asked = make_settings(
        {
            "methods": what,
            "dataset": "cifar10-lt",
            "arch": arch,
            "precision": precision,
            "device": options.device.type,
            "seeds": 0,
            "option": absent,
        }
    )
    return make_plan(asked).runs[0].run


def fast_side(what: str, precision: str, arch: str, options: Options) -> Callable[[], None]:
    x, y = batch(options)
    run = settings_of(what, precision, arch, options)
    trained = build(run, COUNTS, (3, 32, 32))
    trained.net.to(options.device)
    model = TrainingModel(trained.net, precision)
    recipe, optimizer = run.recipe, make_optimizer(model, run.recipe)
    ctx = Context(
        class_counts=torch.tensor(COUNTS, device=options.device),
        epoch=recipe.epochs // 2,  # TAET's second stage
        epochs=recipe.epochs,
        attack=recipe.attack,
        generator=generator(options.device, 0, "attack"),
    )
    trained.method.on_epoch_start(ctx)
    graphs = CudaGraphs(options.device) if options.device.type == "cuda" else None
    stepper = Stepper(model, trained.method, optimizer, graphs)

    def step() -> None:
        with true_float32(search_algorithms=True):
            stepper(x, y, ctx)

    return turn(step, arch, options)


def plain_side(what: str, arch: str, options: Options) -> Callable[[], None]:
    x, y = batch(options)
    torch.manual_seed(0)
    net = build_model(arch, num_classes=len(COUNTS)).to(options.device)
    model = plain.published(net, inplace=arch == "small-cnn")
    optimizer = plain.make_optimizer(model)

    def step() -> None:
        with torch_defaults(options.device):
            plain.train_step(what, model, optimizer, x, y, COUNTS)

    return turn(step, arch, options)


def turn(step: Callable[[], None], arch: str, options: Options) -> Callable[[], None]:
    """The steps of a turn, after some that are not counted."""
    warm = WARM + 2 if options.device.type == "cuda" else 2
    for _ in range(0 if options.quick else warm):
        step()

    def run() -> None:
        for _ in range(steps_of(arch, options)):
            step()

    return run


def steps_of(arch: str, options: Options) -> int:
    """How many steps a turn has."""
    if options.device.type == "cuda":
        return CUDA_TURN
    return 1 if options.quick else TURN[arch]


def torch_defaults(device: torch.device) -> AbstractContextManager[object]:
    """What a published script runs with on a GPU, whatever ltrobust has set for the process."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(benchmark=True, allow_tf32=True)


def batch(options: Options) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    size, side = (2, 8) if options.quick else (128, 32)
    x = torch.rand(size, 3, side, side, generator=draw)
    shares = torch.tensor(COUNTS, dtype=torch.float)
    y = torch.multinomial(shares, size, replacement=True, generator=draw)
    return x.to(options.device), y.to(options.device)


def measure(what: str, arch: str, options: Options, findings: Findings) -> None:
    """All precisions of one defense on one architecture, in the same rounds."""
    wanted = [p for p in PRECISIONS if f"{what}/{p}/{arch}" in options.cases]
    if not wanted:
        return
    sides: dict[str, tuple[Make, tuple[object, ...]]] = {
        "plain": (plain_side, (what, arch, options))
    }
    for precision in wanted:
        sides[precision] = (fast_side, (what, precision, arch, options))
    rounds = 1 if options.quick else ROUNDS
    seconds, _ = judged(sides, rounds, BUDGET, options.device)
    x, y = batch(options)
    images = len(y) * steps_of(arch, options)
    gflop = step_gflop(build_model(arch, num_classes=len(COUNTS)), x, y, what, plain.STEPS)
    for precision in wanted:
        case = f"{what}/{precision}/{arch}"
        row = compare(seconds["plain"], seconds[precision], images)
        rate = gflop * row["fast"]
        findings.rows[case] = row
        findings.peak_share[case] = rate / PEAKS["bf16"]
        findings.notes[case] = (
            f"{gflop:.3g} GFLOP/image, {rate:.0f} GFLOP/s, "
            f"{100 * rate / PEAKS[precision]:.0f}% of the {precision} peak"
        )
        print(f"{case}: {row['ratio']:.2f}", flush=True)


PEAKS: dict[str, float] = {}
"""Measured matrix peak by precision, GFLOP/s."""


def main() -> None:
    options = parse(__doc__.partition("\n")[0], CASES)
    for precision, dtype in PRECISIONS.items():
        sizes, seconds = ((256,), 0.1) if options.quick else (SIZES, 1.0)
        PEAKS[precision] = matrix_peak(dtype, options.device, sizes, seconds)
        print(f"matrix peak {precision}: {PEAKS[precision]:.0f} GFLOP/s", flush=True)
    findings = Findings()
    for what, arch in itertools.product(METHODS, ARCHS):
        measure(what, arch, options, findings)
    finish(options, findings)


if __name__ == "__main__":
    main()
