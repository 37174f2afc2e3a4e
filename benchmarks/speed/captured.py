"""Training steps recorded once and repeated, against ordinary ones, by method; bf16 first.

    python benchmarks/speed/captured.py --device cuda --seconds 85 --json captured.json

On CUDA of resnet18 at batch 128; `host_ms` beside `ms` tells whether the host or the device is the
limit. Each case takes a few seconds and is written as it ends; what finds no time is left out. On a
CPU, where nothing is recorded, of small-cnn and ordinary steps alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.bench.store import write_atomic
from ltrobust.data import long_tail_counts
from ltrobust.float32 import true_float32
from ltrobust.graphs import CudaGraphs
from ltrobust.method import Context
from ltrobust.seeds import generator
from ltrobust.training.captured import WARM, Stepper
from ltrobust.training.engine import TrainingModel
from ltrobust.training.trainer import build, make_optimizer

METHODS = ("pgd-at", "at-bsl", "trades", "robal", "taet")
COUNTS = tuple(long_tail_counts(5000, 10, 50.0, "exp"))
ROUNDS = 7
NEEDED = 6.0
"""Seconds that must be left for a case to begin."""
Row = dict[str, float]


def stepper_of(method: str, precision: str, device: torch.device, *, record: bool) -> Stepper:
    """A stepper of the unified recipe on CIFAR-10-LT's shapes, in its last epoch."""
    asked = {
        "methods": method,
        "dataset": "cifar10-lt",
        "arch": "resnet18" if device.type == "cuda" else "small-cnn",
        "precision": precision,
        "device": device.type,
    }
    run = make_plan(make_settings(asked)).runs[0].run
    built = build(run, COUNTS, (3, 32, 32))
    built.net.to(device)
    model = TrainingModel(built.net, precision)
    graphs = CudaGraphs(device) if record else None
    stepper = Stepper(model, built.method, make_optimizer(model, run.recipe), graphs, print)
    stepper.ctx = Context(  # type: ignore[attr-defined]
        class_counts=torch.tensor(COUNTS, device=device),
        epoch=run.recipe.epochs - 1,
        epochs=run.recipe.epochs,
        attack=run.recipe.attack,
        generator=generator(device, 0, "attack"),
        model=model,
        lr=run.recipe.lr,
    )
    return stepper


def timed(stepper: Stepper, x: torch.Tensor, y: torch.Tensor, steps: int) -> Row:
    """Median milliseconds of a step over rounds of so many, and those that the host took."""
    device, ctx = x.device, stepper.ctx  # type: ignore[attr-defined]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(WARM + 2):
        stepper(x, y, ctx)
    whole, host = [], []
    for _ in range(ROUNDS):
        wait()
        began = time.perf_counter()
        for _ in range(steps):
            stepper(x, y, ctx)
        host.append((time.perf_counter() - began) / steps)
        wait()
        whole.append((time.perf_counter() - began) / steps)
    return {"ms": 1e3 * statistics.median(whole), "host_ms": 1e3 * statistics.median(host)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=85)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    options = parser.parse_args()
    device, began = torch.device(options.device), time.perf_counter()
    cuda = device.type == "cuda"
    batch, steps = (128, 10) if cuda else (4, 1)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, 32, 32, generator=draw).to(device)
    y = torch.randint(10, (batch,), generator=draw).to(device)
    rows: dict[str, Row] = {}
    cases = [(p, m) for p in ("bf16", "fp32") for m in METHODS]
    for precision, method in cases[:1] if options.quick else cases:
        for record in (True, False) if cuda else (False,):
            name = f"{method}/{precision}/{'recorded' if record else 'ordinary'}"
            if options.seconds - (time.perf_counter() - began) < NEEDED:
                print(f"no time left for {name}", flush=True)
                continue
            with true_float32(search_algorithms=True):
                stepper = stepper_of(method, precision, device, record=record)
                rows[name] = timed(stepper, x, y, steps)
            print(name, {key: round(value, 2) for key, value in rows[name].items()}, flush=True)
            if options.json:
                write_atomic(options.json, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
